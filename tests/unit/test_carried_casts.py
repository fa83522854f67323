"""Casts to the element types that packages do not have, against ml_dtypes, number for number."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgepack.targets import load_target
from tests import kernels

FLOAT8 = {
    "FLOAT8E4M3FN": ml_dtypes.float8_e4m3fn,
    "FLOAT8E4M3FNUZ": ml_dtypes.float8_e4m3fnuz,
    "FLOAT8E5M2": ml_dtypes.float8_e5m2,
    "FLOAT8E5M2FNUZ": ml_dtypes.float8_e5m2fnuz,
}
INTEGERS = {
    "INT4": ml_dtypes.int4,
    "UINT4": ml_dtypes.uint4,
    "INT2": ml_dtypes.int2,
    "UINT2": ml_dtypes.uint2,
}


def cast(given: str, to: str, x: np.ndarray, **attributes: Any) -> np.ndarray:
    """What a network with this Cast alone makes of ``x``."""
    types = [int(TensorProto.DataType.Value(name)) for name in (given, to)]
    graph = helper.make_graph(
        [helper.make_node("Cast", ["x"], ["y"], to=types[1], **attributes)],
        "cast",
        [helper.make_tensor_value_info("x", types[0], x.shape)],
        [helper.make_tensor_value_info("y", types[1], x.shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 25)], ir_version=13)
    return kernels.run(kernels.compile_network(model, load_target("host")), [x])[0]


def same(answer: np.ndarray, wanted: np.ndarray) -> bool:
    """The same numbers, of which NaNs are one, and zeros of the same sign."""
    is_number = ~np.isnan(wanted)
    signs = np.array_equal(np.signbit(answer)[is_number], np.signbit(wanted)[is_number])
    return bool(np.array_equal(answer, wanted, equal_nan=True)) and signs


def patterns() -> np.ndarray:
    """Every float32 of 7 mantissa bits, infinities and NaNs among them, and the ones next to it and
    half-way to the next: every number of the narrower types, every tie, and either side of both.
    """
    top = np.arange(1 << 16, dtype=np.uint32) << 16
    parts = [top, top + 1, top + 0x7FFF, top + 0x8000, top + 0x8001, top + 0xFFFF]
    return np.concatenate(parts).view(np.float32)


@pytest.mark.parametrize("saturate", [1, 0])
@pytest.mark.parametrize("name", FLOAT8)
def test_cast_to_float8_rounds_as_onnx_says(name: str, saturate: int) -> None:
    x = patterns()
    dtype = np.dtype(FLOAT8[name])
    with np.errstate(all="ignore"):
        convert = numpy_helper.saturate_cast if saturate else np.asarray
        wanted = convert(x, dtype).astype(np.float32)
    answer = cast("FLOAT", name, x, saturate=saturate)
    assert same(answer, wanted)


@pytest.mark.parametrize(
    ("name", "dtype"), [("BFLOAT16", ml_dtypes.bfloat16), ("FLOAT4E2M1", ml_dtypes.float4_e2m1fn)]
)
def test_cast_to_other_floats_rounds_as_onnx_says(name: str, dtype: type) -> None:
    x = patterns()
    with np.errstate(all="ignore"):
        wanted = x.astype(dtype).astype(np.float32)
    answer = cast("FLOAT", name, x)
    assert same(answer, wanted)


@pytest.mark.parametrize("mode", ["up", "down", "nearest"])
def test_cast_to_powers_of_two_rounds_as_asked_and_saturates(mode: str) -> None:
    x = patterns()
    with np.errstate(all="ignore"):
        size = np.abs(x.astype(np.float64))
        exponent = np.floor(np.log2(np.maximum(size, 2.0**-140)))
        fraction = size / 2.0**exponent
        exponent += {"up": fraction > 1, "down": False, "nearest": fraction >= 1.5}[mode]
        wanted = 2.0 ** np.clip(np.where(x > 0, exponent, -200.0), -127, 127)
    wanted = np.where(np.isnan(x), np.nan, wanted).astype(np.float32)
    answer = cast("FLOAT", "FLOAT8E8M0", x, round_mode=mode)
    assert same(answer, wanted)


def test_cast_to_powers_of_two_without_saturation_has_nan_outside_the_range() -> None:
    x = np.array([0, -1, 2.0**-127, 2.0**-128, 1.4, 2.0**127, 3e38, np.inf, np.nan], np.float32)
    answer = cast("FLOAT", "FLOAT8E8M0", x, saturate=0, round_mode="nearest")
    nan = np.nan
    assert same(
        answer, np.array([nan, nan, 2.0**-127, nan, 1, 2.0**127, nan, nan, nan], np.float32)
    )


@pytest.mark.parametrize("given", ["FLOAT", "FLOAT16", "INT64", "UINT8"])
@pytest.mark.parametrize("name", INTEGERS)
def test_cast_to_narrow_integers_keeps_the_low_bits(name: str, given: str) -> None:
    values = np.arange(0 if given == "UINT8" else -40, 60)
    x = values.astype(helper.tensor_dtype_to_np_dtype(TensorProto.DataType.Value(given)))
    answer = cast(given, name, x)
    assert answer.dtype == ("uint8" if name.startswith("U") else "int8")
    assert np.array_equal(answer, values.astype(INTEGERS[name]).astype(answer.dtype))

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgepack.artefacts import DTYPE_BYTES, GoldenVectors, TensorSpec
from edgepack.canonical import MalformedError
from edgepack.package.golden import decode, encode, size, vector_bytes


def spec(name: str, dtype: str, *shape: int) -> TensorSpec:
    return TensorSpec(name=name, dtype=dtype, shape=shape)


def vectors(
    inputs: list[dict[str, Any]], outputs: list[dict[str, Any]], tolerance: float = 1e-4
) -> GoldenVectors:
    return GoldenVectors(
        inputs=tuple(inputs), outputs=tuple(outputs), tolerance=tolerance, distinct=True
    )


X, Y, K = spec("x", "float32", 1, 17), spec("y", "int16", 2, 2), spec("k", "bool")
ONE = vectors(
    [{"x": np.arange(17, dtype=np.float32).reshape(1, 17)}],
    [{"y": np.array([[1, -2], [3, -4]], np.int16), "k": np.array(True)}],
)


def test_the_layout_is_the_documented_one() -> None:
    data = encode(ONE, (X,), (Y, K))
    assert data[:64] == b"EPGV0001" + b"\1\0\0\0" + bytes(52)
    assert data[64:132] == np.arange(17, dtype="<f4").tobytes()
    assert data[132:192] == bytes(60)
    assert data[192:200] == b"\x01\0\xfe\xff\x03\0\xfc\xff"
    assert data[200:256] == bytes(56)
    assert data[256:] == b"\1" + bytes(63)
    assert len(data) == size(1, (X,), (Y, K)) == 64 + vector_bytes((X, Y, K))


@pytest.mark.parametrize("dtype", DTYPE_BYTES)
@pytest.mark.parametrize("shape", [(), (1,), (3, 5), (64,), (1, 2, 3, 4)])
def test_every_type_and_shape_comes_back_bit_for_bit(dtype: str, shape: tuple[int, ...]) -> None:
    raw = np.random.default_rng(0).integers(0, 256, (2, *shape, DTYPE_BYTES[dtype]), np.uint8)
    raw %= 2 if dtype == "bool" else 255
    a, b = (np.frombuffer(part.tobytes(), dtype).reshape(shape) for part in raw)
    i, o = spec("i", dtype, *shape), spec("o", dtype, *shape)
    again = decode(
        encode(vectors([{"i": a}, {"i": b}], [{"o": b}, {"o": a}]), (i,), (o,)), (i,), (o,), 0.5
    )
    assert again.tolerance == 0.5
    for found, expected in ((again.inputs, (a, b)), (again.outputs, (b, a))):
        for tensors, array in zip(found, expected, strict=True):
            (tensor,) = tensors.values()
            assert (tensor.dtype, tensor.shape) == (array.dtype, shape)
            assert tensor.tobytes() == array.tobytes()


def test_arrays_in_another_memory_order_are_written_row_major_and_little_endian() -> None:
    array = np.arange(6, dtype=">i2").reshape(2, 3).T
    o = spec("o", "int16", 3, 2)
    k = np.array(True)
    data = encode(vectors([{"k": k}], [{"o": array}]), (K,), (o,))
    assert data[128:140] == np.array([0, 3, 1, 4, 2, 5], "<i2").tobytes()


@pytest.mark.parametrize(
    ("first", "second", "distinct"),
    [
        (1.0, 1.0, False),
        (1.0, 1.00009, False),
        (1.0, 1.0002, True),
        (0.0, 0.0, False),
        (0.0, 1e-30, True),
        (1000.0, 1000.05, False),
        (1.0, np.nan, True),
    ],
)
def test_distinct_says_whether_outputs_differ_by_more_than_the_tolerance(
    first: float, second: float, distinct: bool
) -> None:
    o = spec("o", "float64", 2)
    given = [{"k": np.array(True)}, {"k": np.array(False)}]
    outputs = [{"o": np.array([0.0, value])} for value in (first, second)]
    data = encode(vectors(given, outputs), (K,), (o,))
    assert decode(data, (K,), (o,), 1e-4).distinct is distinct


def test_integers_are_distinct_when_they_are_not_equal() -> None:
    given = [{"k": np.array(True)}] * 2
    ones, twos = np.ones((2, 2), np.int16), np.full((2, 2), 2, np.int16)
    for outputs, distinct in (([ones, ones], False), ([ones, twos], True)):
        data = encode(vectors(given, [{"y": array} for array in outputs]), (K,), (Y,))
        assert decode(data, (K,), (Y,), 1.0).distinct is distinct


GOOD = encode(ONE, (X,), (Y, K))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "EPGV0001"),
        (GOOD[:63], "EPGV0001"),
        (b"EPGV0002" + GOOD[8:], "EPGV0001"),
        (GOOD[:8] + b"\0" + GOOD[9:], "0 vectors"),
        (GOOD[:8] + b"\xff\xff\xff\xff" + GOOD[12:], "4294967295 vectors"),
        (GOOD[:20] + b"\1" + GOOD[21:], "not zero after the count"),
        (GOOD[:-1], "1 vectors"),
        (GOOD + b"\0", "1 vectors"),
        (GOOD[:133] + b"\1" + GOOD[134:], "padding after x"),
        (GOOD[:-1] + b"\1", "padding after k"),
        (GOOD[:256] + b"\2" + GOOD[257:], "neither 0 nor 1"),
    ],
)
def test_what_is_no_golden_bin_of_this_model_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(MalformedError, match=words):
        decode(data, (X,), (Y, K), 1e-4)


@pytest.mark.parametrize(
    "golden",
    [
        vectors([{"x": ONE.inputs[0]["x"]}], []),
        vectors([{}], [ONE.outputs[0]]),
        vectors([ONE.inputs[0] | {"z": np.array(1)}], [ONE.outputs[0]]),
        vectors([{"x": np.zeros((1, 17))}], [ONE.outputs[0]]),
        vectors([{"x": np.zeros((17, 1), np.float32)}], [ONE.outputs[0]]),
    ],
    ids=["count", "missing", "more", "dtype", "shape"],
)
def test_tensors_that_are_not_the_models_are_refused(golden: GoldenVectors) -> None:
    with pytest.raises(MalformedError, match="golden vectors"):
        encode(golden, (X,), (Y, K))

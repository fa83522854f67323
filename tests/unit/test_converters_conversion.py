from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from tests import operators
from tests.operators import EVERY_TYPE, any_of, node, whole

SAME_SIZE = [
    ("float32", "int32", "uint32"),
    ("float64", "int64", "uint64"),
    ("float16", "int16", "uint16"),
    ("int8", "uint8", "bool"),
]


def code(dtype: str) -> int:
    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


@pytest.mark.parametrize("source", EVERY_TYPE)
def test_casts_to_every_type(source: str) -> None:
    nodes = [node("Cast", "x", f"to_{dtype}", to=code(dtype)) for dtype in EVERY_TYPE]
    like = {f"like_{dtype}": np.zeros(1, dtype) for dtype in EVERY_TYPE}
    nodes += [node("CastLike", f"x like_{dtype}", f"as_{dtype}") for dtype in EVERY_TYPE]

    def draw(generator: np.random.Generator) -> np.ndarray:
        values = any_of(source, 5, 13)(generator)
        # What is below 0 has no unsigned equal that all processors agree on.
        return np.abs(values * 3).astype(source) if source.startswith("float") else values

    operators.agree(nodes, {"x": draw}, like)


def test_floats_below_zero_as_small_integers() -> None:
    nodes = [node("Cast", "x", dtype, to=code(dtype)) for dtype in ("int8", "int16", "uint8")]
    draws = {"x": lambda g: np.asarray(g.uniform(-100, 100, 200)).astype(np.float32)}
    operators.agree(nodes, draws)


@pytest.mark.parametrize("kinds", SAME_SIZE, ids=str)
def test_the_same_bits_as_another_type(kinds: tuple[str, ...]) -> None:
    for source in kinds:
        nodes = [node("BitCast", "x", f"as_{dtype}", to=code(dtype)) for dtype in kinds]
        draw = whole(0, 2, 3, 7, dtype=source) if "bool" in kinds else any_of(source, 3, 7)
        operators.agree(nodes, {"x": draw}, opset=26)

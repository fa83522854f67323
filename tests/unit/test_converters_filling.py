from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from tests import operators
from tests.operators import EVERY_TYPE, any_of, ints, node, normal, whole


@pytest.mark.parametrize("dtype", EVERY_TYPE)
def test_sides_of_a_diagonal(dtype: str) -> None:
    nodes = [
        node("Trilu", f"x{names}", f"y{i}{upper}", upper=upper)
        for i, names in enumerate(("", " one", " minus", " far", " k"))
        for upper in (0, 1)
    ]
    constants = {"one": np.int64(1), "minus": np.int64(-2), "far": np.int64(9)}
    operators.agree(nodes, {"x": any_of(dtype, 2, 3, 5), "k": whole(-3, 4)}, constants)


def one_hot(depth: int, axis: int, values: str, dtype: str) -> operators.Oracle:
    def wanted(_: Any, inputs: operators.Arrays) -> list[np.ndarray]:
        indices = inputs["i"].astype(np.int64)
        indices = np.expand_dims(np.where(indices < 0, indices + depth, indices), axis)
        places = np.arange(depth).reshape([depth if a == axis else 1 for a in range(indices.ndim)])
        off, on = inputs[values] if values in inputs else np.array([0, 1], dtype)
        return [np.where(indices == places, on, off)]

    return wanted


@pytest.mark.parametrize("dtype", EVERY_TYPE)
@pytest.mark.parametrize("indices", ["int64", "int32", "float32", "uint8"])
def test_one_hot_rows(indices: str, dtype: str) -> None:
    low = 0 if indices.startswith("u") else -9
    draws = {"i": whole(low, 10, 5, 6, dtype=indices)}
    constants = {"d": np.int64(7), "v": np.array([0, 1], dtype)}
    hot = node("OneHot", "i d v", "y", axis=1)
    operators.agree(hot, draws, constants, oracle=one_hot(7, 1, "", dtype))


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_one_hot_rows_of_given_values(axis: int) -> None:
    draws = {"i": whole(-9, 10, 5, 6), "v": normal(2)}
    hot = node("OneHot", "i d v", "y", axis=axis)
    oracle = one_hot(7, axis % 3, "v", "float32")
    operators.agree(hot, draws, {"d": ints(7)}, oracle=oracle)


def test_what_is_made_of_shapes_alone() -> None:
    def wanted(_: Any, inputs: operators.Arrays) -> list[np.ndarray]:
        x = inputs["x"]
        return [x + np.eye(3, 5, 1, np.float32), np.eye(3, 5, -1).astype(bool), x + 7]

    seven = helper.make_tensor("value", TensorProto.FLOAT, [1], [7])
    nodes = [
        node("EyeLike", "x", "eye", k=1),
        node("Add", "x eye", "a"),
        node("EyeLike", "x", "b", k=-1, dtype=TensorProto.BOOL),
        node("Shape", "x", "shape"),
        node("ConstantOfShape", "shape", "sevens", value=seven),
        node("Add", "x sevens", "c"),
    ]
    operators.agree(nodes, {"x": normal(3, 5)}, oracle=wanted)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int16", "int32", "int64"])
def test_sequences_of_numbers(dtype: str) -> None:
    nodes = [node("Range", "start end step", "range"), node("Mul", "x range", "y")]
    values = zip(("start", "end", "step"), (7, -4, -2), strict=True)
    constants = {name: np.array(value, dtype) for name, value in values}
    operators.agree(nodes, {"x": any_of(dtype, 3, 6)}, constants)

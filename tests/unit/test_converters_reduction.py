from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests import operators
from tests.operators import FLOATS, any_of, ints, node, normal, whole

OPERATORS = (
    *("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean"),
    *("ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare"),
)
INTEGERS = ("int32", "int64", "uint32", "uint64")
EXTREMES = ("ReduceMax", "ReduceMin")


def reductions(
    names: tuple[str, ...], operand: str = "", suffix: str = "", **attributes: Any
) -> list[Any]:
    return [node(name, f"x {operand}", f"{name}{suffix}", **attributes) for name in names]


@pytest.mark.parametrize("dtype", FLOATS)
def test_every_reduction_of_floats(dtype: str) -> None:
    nodes = [
        *reductions(OPERATORS, "outer", "_outer"),
        *reductions(OPERATORS, "last", "_last", keepdims=0),
        *reductions(OPERATORS, suffix="_all"),
        *reductions(OPERATORS, suffix="_none", noop_with_empty_axes=1),
    ]
    constants = {"outer": ints(0, -2), "last": ints(-1)}
    draws = {"x": normal(3, 4, 5, dtype=dtype, positive=True)}
    operators.agree(nodes, draws, constants, tolerance=operators.TOLERANCES[dtype] * 2)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_every_reduction_of_integers(dtype: str) -> None:
    # NumPy, and with it the oracle, sums squares of int32 as int64; logarithms are of floats alone.
    names = tuple(name for name in OPERATORS if "Square" not in name and "Log" not in name)
    nodes = [*reductions(names, "axes"), *reductions(names, "last", "_last", keepdims=0)]
    constants = {"axes": ints(0, 2), "last": ints(-1)}
    operators.agree(nodes, {"x": whole(1, 4, 2, 4, 3, dtype=dtype)}, constants)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "bool"])
def test_extremes_of_small_types(dtype: str) -> None:
    nodes = [*reductions(EXTREMES, "axes"), *reductions(EXTREMES, suffix="_all")]
    operators.agree(nodes, {"x": any_of(dtype, 3, 4, 9)}, {"axes": ints(1)}, opset=20)


def test_means_of_integers_are_cut_off_towards_zero() -> None:
    def wanted(_: Any, inputs: operators.Arrays) -> list[np.ndarray]:
        return [np.trunc(inputs["x"].mean(axis=1, keepdims=True)).astype(np.int32)]

    draws = {"x": whole(-9, 9, 40, 3, dtype="int32")}
    operators.agree(node("ReduceMean", "x axes", "y"), draws, {"axes": ints(1)}, oracle=wanted)


def test_axes_as_attributes_of_old_opsets() -> None:
    nodes = [
        *reductions(OPERATORS, suffix="_a", axes=[-1]),
        *reductions(OPERATORS, suffix="_b", axes=[2, 0], keepdims=0),
        *reductions(OPERATORS, suffix="_c"),
    ]
    draws = {"x": normal(3, 4, 5, positive=True)}
    operators.agree(nodes, draws, opset=12, oracle=operators.onnxruntime)


def test_axes_that_are_empty_mean_all_or_none() -> None:
    nodes = [
        *reductions(OPERATORS, "axes", "_all"),
        *reductions(OPERATORS, "axes", "_none", noop_with_empty_axes=1),
    ]
    draws = {"x": normal(3, 4, positive=True)}
    operators.agree(nodes, draws, {"axes": ints()})


def test_numbers_without_axes_and_axes_of_one_element() -> None:
    def itself(_: Any, inputs: operators.Arrays) -> list[np.ndarray]:
        return [inputs["x"]] * 4

    names = ("ReduceMax", "ReduceMean", "ReduceProd", "ReduceSum")
    operators.agree(reductions(names, keepdims=0), {"x": normal()}, oracle=itself)
    nodes = reductions(OPERATORS, "axes", keepdims=0)
    draws = {"x": normal(1, 4, 1, positive=True)}
    operators.agree(nodes, draws, {"axes": ints(0, 2)})


def test_the_logarithm_of_a_sum_of_powers_without_overflow() -> None:
    def wanted(_: Any, inputs: operators.Arrays) -> list[np.ndarray]:
        return [np.logaddexp.reduce(inputs["x"].astype("f8"), axis=1).astype(np.float32)]

    def draw(generator: np.random.Generator) -> np.ndarray:
        values = generator.standard_normal((4, 9)).astype(np.float32) * 500
        values[0] = -np.inf
        values[1, 3] = np.inf
        values[2, 5] = -np.inf
        return values

    reduction = node("ReduceLogSumExp", "x axes", "y", keepdims=0)
    operators.agree(reduction, {"x": draw}, {"axes": ints(1)}, oracle=wanted)


def test_integers_by_way_of_floats() -> None:
    nodes = reductions(("ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare"), "axes")
    draws = {"x": whole(1, 9, 40, 3, dtype="int32")}
    operators.agree(nodes, draws, {"axes": ints(1)}, opset=18, oracle=operators.onnxruntime)


@pytest.mark.parametrize("dtype", FLOATS)
def test_extremes_of_infinities_are_infinite(dtype: str) -> None:
    def draw(generator: np.random.Generator) -> np.ndarray:
        values = generator.standard_normal((6, 40)).astype(dtype)
        values[0], values[1] = -np.inf, np.inf
        values[2, ::2] = generator.choice([np.inf, -np.inf], 20)
        return np.asarray(values)

    nodes = [
        *reductions(EXTREMES, "axes"),
        *reductions(EXTREMES, "other", "_other"),
        *reductions(EXTREMES, suffix="_all"),
    ]
    operators.agree(nodes, {"x": draw}, {"axes": ints(1), "other": ints(0)}, opset=20)

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests import operators
from tests.operators import EVERY_TYPE, any_of, node, normal, whole

REDUCTIONS = ("add", "mul", "max", "min")


@pytest.mark.parametrize("dtype", EVERY_TYPE)
def test_every_type_and_reduction(dtype: str) -> None:
    kinds = ("none",) if dtype == "bool" else ("none", *REDUCTIONS)
    nodes = [node("ScatterElements", "x i u", f"e{k}", axis=1, reduction=k) for k in kinds]
    nodes += [node("ScatterND", "x j v", f"n{k}", reduction=k) for k in kinds]
    draws = {
        "x": any_of(dtype, 3, 5, 7),
        "i": whole(-5, 5, 2, 3, 7),
        "u": any_of(dtype, 2, 3, 7),
        "j": whole(-3, 3, 4, 2),
        "v": any_of(dtype, 4, 7),
    }
    tolerance = {"float16": 1e-2}.get(dtype, 1e-5)
    operators.agree(nodes, draws, generic=True, tolerance=tolerance)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_updates_of_fewer_elements_than_the_data(axis: int) -> None:
    nodes = [
        node("ScatterElements", "x i u", f"y{k}", axis=axis, reduction=k) for k in ("none", "add")
    ]
    draws = {"x": normal(2, 3, 4, 5), "i": whole(-2, 2, 1, 2, 3, 2), "u": normal(1, 2, 3, 2)}
    operators.agree(nodes, draws, generic=True)


def test_the_operator_of_old_opsets() -> None:
    draws = {"x": normal(4, 5), "i": whole(0, 4, 1, 5), "u": normal(1, 5)}
    scatter = node("Scatter", "x i u", "y", axis=0)
    operators.agree(scatter, draws, opset=10, oracle=operators.onnxruntime, generic=True)


PLACES = [((4, 1), (4, 3, 4)), ((2, 2), (2, 4)), ((2, 2, 3), (2, 2)), ((1, 1, 1), (1, 1, 3, 4))]


def test_positions_in_several_axes() -> None:
    nodes = [node("ScatterND", f"x i{n} u{n}", f"y{n}") for n in range(len(PLACES))]
    draws = {f"i{n}": whole(-2, 2, *places) for n, (places, _) in enumerate(PLACES)}
    draws |= {f"u{n}": normal(*shape) for n, (_, shape) in enumerate(PLACES)}
    operators.agree(nodes, {"x": normal(2, 3, 4)} | draws, generic=True)


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_a_place_out_of_range_is_the_nearest(dtype: str) -> None:
    ends = [int(np.iinfo(dtype).min), -100, -7, -6, 0, 5, 6, 100, int(np.iinfo(dtype).max)]

    def draw(generator: np.random.Generator) -> np.ndarray:
        return np.asarray(generator.choice(ends, 8)).astype(dtype)

    def wanted(_: Any, inputs: operators.Arrays) -> list[np.ndarray]:
        indices = inputs["i"].astype("i8")
        places = np.clip(np.where(indices < 0, indices + 6, indices), 0, 5)
        result = inputs["x"].astype("f8")
        np.add.at(result, places, inputs["u"].astype("f8"))
        return [result.astype("f4")] * 2

    nodes = [
        node("ScatterElements", "x i u", "y", reduction="add"),
        node("Cast", "i", "j", to=7),
        node("Unsqueeze", "j axis", "k"),
        node("ScatterND", "x k u", "z", reduction="add"),
    ]
    draws = {"x": normal(6), "i": draw, "u": normal(8)}
    axis = {"axis": operators.ints(1)}
    operators.agree(nodes, draws, axis, oracle=wanted, generic=True)


@pytest.mark.parametrize("dtype", EVERY_TYPE)
def test_a_stretch_of_a_cache(dtype: str) -> None:
    nodes = [
        node("TensorScatter", "x u i", "linear"),
        node("TensorScatter", "x v j", "circular", mode="circular"),
        node("TensorScatter", "x w", "from_the_start"),
        node("TensorScatter", "y w i", "other_axis", axis=1),
    ]
    draws = {
        "x": any_of(dtype, 2, 3, 6, 4),
        "u": any_of(dtype, 2, 3, 2, 4),
        "v": any_of(dtype, 2, 3, 4, 4),
        "w": any_of(dtype, 2, 3, 1, 4),
        "y": any_of(dtype, 2, 9, 1, 4),
        "i": whole(0, 5, 2),
        "j": whole(0, 20, 2),
    }
    operators.agree(nodes, draws, opset=24)


def test_a_stretch_that_would_not_fit_is_moved_inside() -> None:
    def wanted(_: Any, inputs: operators.Arrays) -> list[np.ndarray]:
        result = inputs["x"].copy()
        for line, start in enumerate(inputs["i"].clip(0, 4)):
            result[line, start : start + 2] = inputs["u"][line]
        return [result]

    draws = {"x": normal(8, 6, 3), "u": normal(8, 2, 3), "i": whole(-9, 12, 8)}
    operators.agree(node("TensorScatter", "x u i", "y"), draws, opset=24, oracle=wanted)

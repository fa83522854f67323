from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests import kernels, operators
from tests.operators import EVERY_TYPE, any_of, ints, node, normal, whole

INDICES: dict[str, Any] = {
    "one": np.int64(2),
    "last": np.int64(-1),
    "up": ints(0, 2, 4),
    "down": ints(4, 2, 0),
    "same": ints(1, 1, 0),
    "far": ints(5, -6),
    "square": ints(0, 1, 3, 2).reshape(2, 2),
    "small": np.array([[0], [2]], np.int32),
}


@pytest.mark.parametrize("dtype", EVERY_TYPE)
def test_every_type_is_looked_up(dtype: str) -> None:
    nodes = [
        node("Gather", "x rows", "gathered", axis=1),
        node("GatherElements", "x places", "elements", axis=1),
        node("GatherND", "x points", "points_of"),
    ]
    draws = {
        "x": any_of(dtype, 3, 5, 7),
        "rows": whole(-5, 5, 4),
        "places": whole(-5, 5, 3, 2, 7),
        "points": whole(-3, 3, 2, 2, dtype="int64"),
    }
    operators.agree(nodes, draws)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_known_indices(axis: int) -> None:
    nodes = [node("Gather", f"x {name}", name + "_of", axis=axis) for name in INDICES]
    operators.agree(nodes, {"x": normal(6, 7, 8)}, INDICES)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_indices_of_a_request(axis: int) -> None:
    nodes = [
        node("Gather", "x number", "a", axis=axis),
        node("Gather", "x some", "b", axis=axis),
        node("Gather", "table square", "c", axis=axis),
        node("GatherElements", "x each", "d", axis=axis),
    ]
    draws = {
        "x": normal(6, 7, 8),
        "number": whole(-6, 6),
        "some": whole(-6, 6, 3, dtype="int32"),
        "square": whole(-6, 6, 2, 2),
        "each": whole(-6, 6, 2, 3, 4),
    }
    table = kernels.weights(6, 7, 8)
    operators.agree(nodes, draws, {"table": table}, oracle=operators.onnxruntime)


PLACES = [((2, 1), 0), ((2, 1), 1), ((2, 2, 1), 1), ((2, 3, 2), 2), ((1, 4), 0), ((3, 2, 2), 0)]


def test_positions_in_several_axes_and_batches() -> None:
    nodes = [node("GatherND", f"x i{n}", f"y{n}", batch_dims=b) for n, (_, b) in enumerate(PLACES)]
    draws = {f"i{n}": whole(-2, 2, *shape) for n, (shape, _) in enumerate(PLACES)}
    operators.agree(nodes, {"x": normal(2, 3, 4, 5)} | draws)


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_an_index_out_of_range_is_the_nearest(dtype: str) -> None:
    def inside(indices: np.ndarray) -> np.ndarray:
        counted = np.where(indices < 0, indices.astype("i8") + 6, indices)
        return np.asarray(np.clip(counted, 0, 5))

    def wanted(_: Any, inputs: operators.Arrays) -> list[np.ndarray]:
        x, rows = inputs["x"], inside(inputs["i"])
        return [x[rows], np.take_along_axis(x, rows[:, None], 0), x[rows], x[[5, 0]]]

    ends = [int(np.iinfo(dtype).min), -100, -7, -6, 0, 5, 6, 100, int(np.iinfo(dtype).max)]

    def draw(generator: np.random.Generator) -> np.ndarray:
        return np.asarray(generator.choice(ends, 40)).astype(dtype)

    nodes = [
        node("Gather", "x i", "a"),
        node("Unsqueeze", "i axis", "u"),
        node("GatherElements", "x u", "b"),
        node("Cast", "u", "v", to=7),
        node("GatherND", "x v", "c"),
        node("Gather", "x far", "d"),
    ]
    constants = {"axis": ints(1), "far": ints(2**40, -(2**40))}
    draws = {"x": normal(6, 1), "i": draw}
    operators.agree(nodes, draws, constants, oracle=wanted)

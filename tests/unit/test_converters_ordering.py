from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests import kernels, operators
from tests.operators import FLOATS, SIGNED, UNSIGNED, node, normal, whole


def places() -> list[Any]:
    return [
        node(operator, "x", f"{operator}{axis}{last}".replace("-", "m"), axis=axis, **attributes)
        for operator in ("ArgMax", "ArgMin")
        for axis in (0, 1, -1)
        for last in (0, 1)
        for attributes in [{"select_last_index": last, "keepdims": last}]
    ]


@pytest.mark.parametrize("dtype", [*FLOATS, *SIGNED, *UNSIGNED])
def test_the_first_and_the_last_of_equal_extremes(dtype: str) -> None:
    # Few values, so that most extremes are there twice.
    operators.agree(places(), {"x": whole(0, 3, 3, 6, 5, dtype=dtype)})


@pytest.mark.parametrize("profile", kernels.EXTREMES)
@pytest.mark.parametrize("shape", [(37,), (1, 37, 1), (2, 3, 37, 5), (2, 150, 9)], ids=str)
def test_shapes(shape: tuple[int, ...], profile: str) -> None:
    axes = range(len(shape))
    nodes = [node("ArgMax", "x", f"y{axis}", axis=axis) for axis in axes]
    nodes += [node("ArgMin", "x", f"z{axis}", axis=axis, keepdims=0) for axis in axes]
    operators.agree(nodes, {"x": normal(*shape)}, profile=profile)


def test_nothing_is_read_outside_for_not_a_number() -> None:
    def wanted(_: Any, inputs: operators.Arrays) -> list[np.ndarray]:
        return [np.argmax(inputs["x"][1:], axis=1)]

    def draw(generator: np.random.Generator) -> np.ndarray:
        values = generator.standard_normal((4, 9)).astype(np.float32)
        values[0] = np.nan
        return values

    # The place of the largest among NaN picks an entry of a table; any will do.
    nodes = [
        node("ArgMax", "x", "place", axis=1, keepdims=0),
        node("Gather", "table place", "picked"),
        node("Slice", "picked one end", "y"),
    ]
    constants = {"table": np.arange(9), "one": np.array([1]), "end": np.array([4])}
    operators.agree(nodes, {"x": draw}, constants, oracle=wanted)


@pytest.mark.parametrize("axis", [-3, -2, -1, 0, 1, 2])
def test_hardmax(axis: int) -> None:
    draws = {"x": whole(0, 4, 3, 6, 5, dtype="float32")}
    operators.agree(node("Hardmax", "x", "y", axis=axis), draws)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_hardmax_over_all_axes_from_one_in_old_opsets(axis: int) -> None:
    hardmax = node("Hardmax", "x", "y", axis=axis)
    operators.agree(hardmax, {"x": normal(3, 6, 5)}, opset=11, oracle=operators.onnxruntime)

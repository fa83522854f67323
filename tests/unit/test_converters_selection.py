from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgepack.errors import ModelError
from tests import operators
from tests.operators import EVERY_TYPE, FLOATS, any_of, node, normal, whole

NUMBERS = [dtype for dtype in EVERY_TYPE if dtype != "bool"]


@pytest.mark.parametrize("dtype", NUMBERS)
def test_bounds_that_are_constants_or_inputs_or_none(dtype: str) -> None:
    nodes = [
        node("Clip", "x low high", "both"),
        node("Clip", "x - high", "upper"),
        node("Clip", "x low", "lower"),
        node("Clip", "x", "none"),
        node("Clip", "x a b", "given"),
    ]
    constants = {"low": np.array(2, dtype), "high": np.array(5, dtype)}
    draws = {
        "x": any_of(dtype, 3, 37),
        "a": whole(1, 4, dtype=dtype),
        "b": whole(5, 8, dtype=dtype),
    }
    operators.agree(nodes, draws, constants)


def test_bounds_as_attributes_of_old_opsets() -> None:
    nodes = [node("Clip", "x", "y", min=-0.5, max=0.25), node("Clip", "x", "z", max=0.5)]
    operators.agree(nodes, {"x": normal(3, 37)}, opset=7, oracle=operators.onnxruntime)


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_bound_that_is_nan_bounds_nothing(dtype: str) -> None:
    def wanted(_: Any, inputs: operators.Arrays) -> list[np.ndarray]:
        return [np.minimum(inputs["x"], inputs["b"]), np.minimum(inputs["x"], inputs["b"])]

    draws = {
        "x": normal(3, 37, dtype=dtype),
        "nan": lambda _: np.array(np.nan, dtype),
        "b": lambda _: np.array(0.5, dtype),
    }
    nodes = [node("Clip", "x nan b", "given"), node("Clip", "x constant b", "constant_nan")]
    operators.agree(nodes, draws, {"constant": np.array(np.nan, dtype)}, oracle=wanted)


@pytest.mark.parametrize("dtype", [*FLOATS, "int32", "int64"])
def test_slopes_below_zero(dtype: str) -> None:
    nodes = [node("PRelu", f"x s{i}", f"y{i}") for i in range(5)]
    shapes = [(), (1,), (5,), (4, 1), (3, 4, 5)]
    draws = {f"s{i}": any_of(dtype, *shape) for i, shape in enumerate(shapes)}
    operators.agree(nodes, {"x": any_of(dtype, 3, 4, 5)} | draws)


@pytest.mark.parametrize("dtype", EVERY_TYPE)
def test_one_of_two_by_a_condition(dtype: str) -> None:
    draws = {
        "c": any_of("bool", 3, 1, 5),
        "a": any_of(dtype, 4, 1),
        "b": any_of(dtype, 2, 1, 1, 5),
    }
    nodes = [node("Where", "c a b", "y"), node("Where", "c one a", "z")]
    operators.agree(nodes, draws, {"one": np.array(1, dtype)})


def test_dropout_drops_nothing() -> None:
    nodes = [
        node("Dropout", "x", "y mask"),
        node("Dropout", "x ratio", "z"),
        node("Dropout", "x ratio off", "w kept"),
    ]
    constants = {"ratio": np.float32(0.3), "off": np.array(False)}
    operators.agree(nodes, {"x": normal(3, 7)}, constants)


def test_dropout_in_training_is_refused() -> None:
    with pytest.raises(ModelError, match="at random"):
        operators.agree(
            node("Dropout", "x ratio on", "y"),
            {"x": normal(3, 7)},
            {"ratio": np.float32(0.3), "on": np.array(True)},
        )

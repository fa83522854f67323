from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
from onnx import helper

from edgepack.importers import functions
from tests import operators
from tests.operators import FLOATS, SIGNED, UNSIGNED, any_of, node, normal

Functions = dict[str, Callable[[np.ndarray], np.ndarray]]

SMALL: Functions = {
    "Acos": np.arccos,
    "Asin": np.arcsin,
    "Atanh": np.arctanh,
}
ANY: Functions = {
    "Asinh": np.arcsinh,
    "Atan": np.arctan,
    "Celu": lambda x: np.where(x < 0, np.expm1(x), x),
    "Cos": np.cos,
    "Cosh": np.cosh,
    "Elu": lambda x: np.where(x < 0, np.expm1(x), x),
    "Erf": np.vectorize(math.erf),
    "Exp": np.exp,
    "Mish": lambda x: x * np.tanh(np.logaddexp(0, x)),
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "Sin": np.sin,
    "Sinh": np.sinh,
    "Softplus": lambda x: np.logaddexp(0, x),
    "Softsign": lambda x: x / (1 + np.abs(x)),
    "Tan": np.tan,
    "Tanh": np.tanh,
}
OF_POSITIVE: Functions = {"Acosh": lambda x: np.arccosh(1 + x), "Log": np.log, "Sqrt": np.sqrt}


def within_one(*shape: int, dtype: str) -> operators.Draw:
    return lambda g: np.asarray(np.tanh(g.standard_normal(shape)) * 0.97).astype(dtype)


def each(names: Iterable[str]) -> list[Any]:
    return [node(name, "x", name) for name in names]


@pytest.mark.parametrize("dtype", FLOATS)
def test_functions_in_every_precision(dtype: str) -> None:
    def wanted(of: Functions) -> operators.Oracle:
        return lambda _, inputs: [f(inputs["x"].astype("f8")).astype(dtype) for f in of.values()]

    tolerance = {"float16": 1e-3, "float32": 1e-6, "float64": 1e-14}[dtype]
    drawn = {"x": normal(3, 37, dtype=dtype)}
    operators.agree(each(ANY), drawn, oracle=wanted(ANY), tolerance=tolerance)
    drawn = {"x": within_one(3, 37, dtype=dtype)}
    operators.agree(each(SMALL), drawn, oracle=wanted(SMALL), tolerance=tolerance)
    nodes = [*each(["Log", "Sqrt"]), node("Add", "x one", "x1"), node("Acosh", "x1", "Acosh")]
    of = {name: OF_POSITIVE[name] for name in ("Log", "Sqrt", "Acosh")}
    operators.agree(
        nodes,
        {"x": normal(3, 37, dtype=dtype, positive=True)},
        {"one": np.array(1, dtype)},
        oracle=wanted(of),
        tolerance=tolerance,
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_functions_near_zero_keep_their_digits(dtype: str) -> None:
    names = ("Atanh", "Sinh", "Tanh", "Asinh", "Atan", "Tan", "Erf")
    powers = np.logspace(-30, -0.1, 400)

    def draw(generator: np.random.Generator) -> np.ndarray:
        signs = generator.choice([-1, 1], powers.size)
        return np.asarray(powers * signs * generator.uniform(0.5, 1, powers.size)).astype(dtype)

    def relative(_: Any, inputs: operators.Arrays) -> list[np.ndarray]:
        x = inputs["x"].astype("float64")
        return [((SMALL | ANY)[name](x) / x).astype(dtype) for name in names]

    nodes = [
        n for name in names for n in (node(name, "x", f"t{name}"), node("Div", f"t{name} x", name))
    ]
    tolerance = {"float32": 1e-6, "float64": 1e-14}[dtype]
    operators.agree(nodes, {"x": draw}, opset=22, oracle=relative, tolerance=tolerance)


@pytest.mark.parametrize("dtype", FLOATS)
def test_activations_with_parameters(dtype: str) -> None:
    nodes = [
        node("Elu", "x", "elu", alpha=0.3),
        node("Gelu", "x", "gelu", approximate="tanh"),
        node("HardSigmoid", "x", "hard", alpha=0.25, beta=0.5),
        node("LeakyRelu", "x", "leaky", alpha=0.25),
        node("Selu", "x", "selu"),
        node("Shrink", "x", "shrink", lambd=0.75, bias=0.5),
        node("ThresholdedRelu", "x", "thresholded", alpha=0.25),
    ]
    tolerance = {"float16": 2e-3, "float32": 1e-6, "float64": 1e-7}[dtype]
    operators.agree(nodes, {"x": normal(3, 37, dtype=dtype)}, tolerance=tolerance)


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_function_that_onnx_defines_by_others(
    dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(functions, "REPLACED", ())  # the operator itself

    def wanted(_: Any, inputs: operators.Arrays) -> list[np.ndarray]:
        x = inputs["x"].astype("f8")
        return [np.where(x < 0, 2.5 * np.expm1(x / 2.5), x).astype(dtype)]

    draws = {"x": normal(3, 37, dtype=dtype)}
    tolerance = {"float16": 1e-3, "float32": 1e-6, "float64": 1e-14}[dtype]
    operators.agree(node("Celu", "x", "y", alpha=2.5), draws, oracle=wanted, tolerance=tolerance)


@pytest.mark.parametrize("detected", [(1, 1), (1, 0), (0, 1)])
@pytest.mark.parametrize("dtype", FLOATS)
def test_infinities_of_the_wanted_sign(dtype: str, detected: tuple[int, int]) -> None:
    positive, negative = detected
    values = np.array([np.inf, -np.inf, np.nan, 0, 1, -5, 60000], dtype)
    nodes = [
        node("IsInf", "x", "y", detect_positive=positive, detect_negative=negative),
        node("IsNaN", "x", "z"),
    ]
    operators.agree(nodes, {"x": lambda g: np.asarray(g.permutation(np.tile(values, 5)))})


@pytest.mark.parametrize("dtype", [*FLOATS, *SIGNED, *UNSIGNED])
def test_signs_and_sizes(dtype: str) -> None:
    names = ["Abs", "Sign"] if dtype.startswith("u") else ["Abs", "Neg", "Sign"]
    operators.agree(each(names), {"x": any_of(dtype, 3, 37)})


def test_rounding_of_halves_to_even() -> None:
    halves = np.arange(-6, 6, 0.5, dtype=np.float32)
    nodes = each(["Round", "Floor", "Ceil"])
    operators.agree(nodes, {"x": lambda g: np.asarray(g.permutation(halves))})


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int64"])
def test_shrinking_of_integers(dtype: str) -> None:
    attributes = helper.make_node("Shrink", ["x"], ["y"], lambd=2.5, bias=1.0)
    operators.agree(attributes, {"x": any_of(dtype, 3, 37)})

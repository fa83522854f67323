from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgepack.targets import load_target
from tests import kernels, networks
from tests.kernels import weights
from tests.networks import node

BEST = kernels.PROFILES[-1]
FUNCTIONS = (
    *("Relu", "Sigmoid", "Tanh", "Erf", "Softplus", "Exp", "Abs", "Neg", "HardSigmoid"),
    *("HardSwish", "Elu", "Selu", "Softsign", "LeakyRelu", "Floor", "Ceil", "Round", "Sign"),
    *("Sin", "Cos", "Atan", "ThresholdedRelu", "Mish"),
)
OF_POSITIVE = ("Sqrt", "Log", "Reciprocal")


def functions(names: Sequence[str], shape: Sequence[int]) -> onnx.ModelProto:
    return networks.model(
        [node(name, "x", name) for name in names],
        {"x": list(shape)},
        {name: list(shape) for name in names},
        opset=18,
    )


@pytest.mark.parametrize("profile", kernels.EXTREMES)
@pytest.mark.parametrize("shape", [(), (1,), (3, 7, 5), (3, 37, 61)], ids=str)
def test_functions_of_one_tensor(shape: tuple[int, ...], profile: str) -> None:
    kernels.check(functions(FUNCTIONS, shape), profile, rule="elementwise")
    kernels.check(functions(OF_POSITIVE, shape), profile, rule="elementwise", positive=True)


@pytest.mark.parametrize("length", [3, 4, 5, 7, 12, 200])
def test_functions_of_several_vectors_at_once(length: int) -> None:
    core = replace(load_target("x86-64-v2"), vector_registers=32)
    network = functions(("Sigmoid", "Tanh", "Relu"), [5, length])
    kernels.check(network, core, rule="elementwise")
    loops = kernels.loops_of(network, core)
    assert loops.count("T.vectorized(T.int64(12))") == 2  # sigmoid and tanh, not the short chain


def test_gelu_as_an_operator_and_spelled_out() -> None:
    nodes = [
        node("Gelu", "x", "exact"),
        node("Gelu", "x", "close", approximate="tanh"),
        node("Div", "x root", "d"),
        node("Erf", "d", "e"),
        node("Add", "e one", "a"),
        node("Mul", "x a", "m"),
        node("Mul", "m half", "spelled"),
        node("Sigmoid", "x", "s"),
        node("Mul", "x s", "silu"),
    ]
    names = ("exact", "close", "spelled", "silu")
    constants = {"root": np.float32(2**0.5), "one": np.float32(1), "half": np.float32(0.5)}
    network = networks.model(
        nodes, {"x": [7, 13]}, {name: [7, 13] for name in names}, constants, opset=20
    )
    kernels.check(network, BEST)


def test_powers() -> None:
    exponents = {"two": 2.0, "three": 3.0, "half": 0.5, "minus": -1.0}
    nodes = [node("Pow", f"x {name}", f"y{name}") for name in exponents]
    nodes.append(node("Pow", "x q", "yq"))
    network = networks.model(
        nodes,
        {"x": [7, 13], "q": [13]},
        {f"y{name}": [7, 13] for name in (*exponents, "q")},
        {name: np.float32(value) for name, value in exponents.items()},
    )
    kernels.check(network, BEST, positive=True)


def test_a_chain_deeper_than_expressions_can_be() -> None:
    nodes, before = [], "x"
    for number in range(260):
        after = f"v{number}" if number < 259 else "y"
        nodes.append(
            node("Max" if number % 2 else "Sub", f"{'x' if number % 2 else 'c'} {before}", after)
        )
        before = after
    network = networks.model(nodes, {"x": [3, 5]}, {"y": [3, 5]}, {"c": weights(5)}, opset=18)
    kernels.check(network, BEST, rule="elementwise")


def test_a_deep_chain_of_functions_is_compiled_in_time() -> None:
    # Each stage uses its argument several times: written out in full, 24 would be 10^10 nodes.
    nodes = [
        node("Tanh" if depth % 3 else "Sigmoid", f"t{depth}" if depth else "x", f"t{depth + 1}")
        for depth in range(24)
    ]
    kernels.check(networks.model(nodes, {"x": [3, 7]}, {"t24": [3, 7]}), BEST, varies=False)


def chain(nodes: Sequence[onnx.NodeProto], inputs: Any, *output: int) -> onnx.ModelProto:
    return networks.model(nodes, inputs, {"y": list(output)})


BROADCASTS = {
    "every rank": chain(
        [
            node("Add", "a b", "s"),
            node("Mul", "s c", "m"),
            node("Sub", "m d", "t"),
            node("Div", "t e", "q"),
            node("Max", "q f", "y"),
        ],
        {
            "a": [3, 1, 5],
            "b": [7, 1],
            "c": [2, 3, 7, 5],
            "d": [1],
            "e": [5],
            "f": [2, 1, 1, 1],
        },
        *(2, 3, 7, 5),
    ),
    "functions of both": chain(
        [
            node("Exp", "a", "e"),
            node("Add", "e b", "s"),
            node("Tanh", "b", "t"),
            node("Mul", "s t", "y"),
        ],
        {"a": [3, 1, 5], "b": [7, 1]},
        *(3, 7, 5),
    ),
    "a function of a column": chain(
        [node("Sub", "x m", "d"), node("Exp", "d", "y")], {"x": [13, 5], "m": [13, 1]}, 13, 5
    ),
    "a function of a row": chain(
        [node("Sub", "x m", "d"), node("Exp", "d", "y")], {"x": [13, 5], "m": [1, 5]}, 13, 5
    ),
    "a function of every other axis": chain(
        [node("Sub", "x m", "d"), node("Sigmoid", "d", "y")],
        {"x": [2, 3, 4, 5], "m": [2, 1, 4, 1]},
        *(2, 3, 4, 5),
    ),
    "one row": chain([node("Mul", "x m", "y")], {"x": [1, 1, 1], "m": [5, 1, 17]}, 5, 1, 17),
}


@pytest.mark.parametrize("profile", kernels.EXTREMES)
@pytest.mark.parametrize("name", BROADCASTS)
def test_broadcasting(name: str, profile: str) -> None:
    kernels.check(BROADCASTS[name], profile, rule="elementwise", positive=True)


def test_choices() -> None:
    nodes = [
        node("Greater", "x zero", "g"),
        node("Where", "g x q", "y"),
        node("Where", "g q x", "w"),
        node("Clip", "x low high", "c"),
        node("PRelu", "x slope", "p"),
    ]
    network = networks.model(
        nodes,
        {"x": [3, 7, 5], "q": [7, 1]},
        {key: [3, 7, 5] for key in "ywcp"},
        {
            "zero": np.float32(0),
            "low": np.float32(-0.5),
            "high": np.float32(0.7),
            "slope": weights(7, 1),
        },
    )
    kernels.check(network, BEST, rule="elementwise")


@pytest.mark.parametrize("profile", kernels.EXTREMES)
def test_conversions(profile: str) -> None:
    kinds = {
        name: getattr(TensorProto, name) for name in ("INT8", "INT32", "INT64", "BOOL", "DOUBLE")
    }
    nodes = [node("Mul", "x ten", "m"), node("Abs", "m", "a"), node("Cast", "a", "UINT8", to=2)]
    nodes += [node("Cast", "m", name, to=kind) for name, kind in kinds.items()]
    kinds["UINT8"] = TensorProto.UINT8
    network = networks.model(
        nodes,
        {"x": [13, 7]},
        {name: [13, 7] for name in kinds},
        {"ten": np.float32(10)},
        types=kinds,
    )
    kernels.check(network, profile, rule="elementwise")


@pytest.mark.parametrize("kind", [np.int32, np.int64], ids=["int32", "int64"])
def test_integers(kind: type[np.generic]) -> None:
    nodes = [
        node("Add", "a b", "s"),
        node("Mul", "s b", "m"),
        node("Sub", "m a", "d"),
        node("Neg", "d", "n"),
        node("Div", "d three", "q"),
        node("Mod", "n three", "r"),
        node("Max", "a b", "t"),
    ]
    code = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    network = networks.model(
        nodes,
        {"a": [13, 7], "b": [7]},
        {key: [13, 7] for key in "mnqrt"},
        {"three": kind(3)},
        types=dict.fromkeys("absmdnqrt", code),
    )
    kernels.check(network, BEST, rule="elementwise")


def test_logic() -> None:
    nodes = [
        node("Greater", "a b", "g"),
        node("Less", "a c", "l"),
        node("And", "g l", "and"),
        node("Or", "g l", "or"),
        node("Xor", "g l", "xor"),
        node("Not", "g", "not"),
        node("Equal", "g l", "equal"),
        node("LessOrEqual", "a b", "least"),
    ]
    names = ("and", "or", "xor", "not", "equal", "least")
    network = networks.model(
        nodes,
        {"a": [13, 7], "b": [7], "c": [13, 1]},
        {name: [13, 7] for name in names},
        types=dict.fromkeys(names, TensorProto.BOOL),
    )
    kernels.check(network, BEST, rule="elementwise")


def test_an_image_of_bytes() -> None:
    nodes = [
        node("Cast", "x", "f", to=TensorProto.FLOAT),
        node("Transpose", "f", "t", perm=[0, 3, 1, 2]),
        node("Sub", "t mean", "d"),
        node("Div", "d deviation", "n"),
        node("Conv", "n w", "y", pads=[1, 1, 1, 1], strides=[2, 2]),
    ]
    network = networks.model(
        nodes,
        {"x": [1, 17, 13, 3]},
        {"y": [1, 8, 9, 7]},
        {"mean": weights(3, 1, 1), "deviation": weights(3, 1, 1) + 60, "w": weights(8, 3, 3, 3)},
        types={"x": TensorProto.UINT8},
    )
    kernels.check(network, BEST, rule="convolution")


@pytest.mark.parametrize("profile", kernels.PROFILES)
def test_a_function_needed_at_a_place_and_at_its_mirror_image(profile: str) -> None:
    """Two positions that differ only in which loop is which are two values."""
    nodes = [
        node("Exp", "x", "e"),
        node("Transpose", "e", "t", perm=[1, 0]),
        node("Sub", "e t", "d"),
        node("Tanh", "d", "y"),
    ]
    kernels.check(networks.model(nodes, {"x": [19, 19]}, {"y": [19, 19]}), profile)

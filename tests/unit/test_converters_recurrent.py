from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgepack.compiler.frontend.converters.recurrent_panels import Tiling
from edgepack.importers.passes.recurrent import FEW_STEPS
from edgepack.targets import load_target
from tests import inferred, kernels

BEST = kernels.PROFILES[-1]
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
ACTIVATIONS = {"LSTM": 3, "GRU": 2, "RNN": 1}
STEPS, BATCH, WIDTH = 6, 3, 5
OPERATORS = pytest.mark.parametrize("operator", list(GATES))


def values(*shape: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng([seed, *shape])
    return np.asarray(generator.standard_normal(shape) * 0.5, np.float32)


def recurrent(
    operator: str,
    *,
    hidden: int = 7,
    steps: int = STEPS,
    batch: int = BATCH,
    given: str = "wrb",
    inputs: Mapping[str, tuple[int, ...]] | None = None,
    types: Mapping[str, int] | None = None,
    **attributes: Any,
) -> onnx.ModelProto:
    """A node with the constants named in ``given``: w, r, b, lengths, h, c, p."""
    directions = 2 if attributes.get("direction") == "bidirectional" else 1
    gates, batch_first = GATES[operator] * hidden, attributes.get("layout", 0)
    state = (batch, directions, hidden) if batch_first else (directions, batch, hidden)
    made = {
        "w": values(directions, gates, WIDTH),
        # Of a gain of about one at most: rounding must not grow from step to step.
        "r": values(directions, gates, hidden, seed=1) * np.float32(min(1, 2 / hidden**0.5)),
        "b": values(directions, 2 * gates, seed=2),
        "l": np.array([steps, 2, steps - 1], np.int32),
        "h": values(*state, seed=3),
        "c": values(*state, seed=4),
        "p": values(directions, 3 * hidden, seed=5),
    }
    data: dict[str, tuple[int, ...]] = {
        "x": (batch, steps, WIDTH) if batch_first else (steps, batch, WIDTH)
    }
    fed = dict(inputs or {})
    order = "xwrblhcp" if operator == "LSTM" else "xwrblh"
    names = [name if name in {"x", *given, *fed} else "" for name in order]
    outputs = ["y", "yh", "yc"] if operator == "LSTM" else ["y", "yh"]
    node = helper.make_node(operator, names, outputs, hidden_size=hidden, **attributes)
    constants = {name: made[name] for name in names if name in given and name}
    return inferred.network([node], data | fed, outputs, constants, opset=14, types=types)


@OPERATORS
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_sequences_of_several_lengths(operator: str, direction: str) -> None:
    network = recurrent(operator, given="wrblhc", direction=direction)
    kernels.check(network, BEST, generic=True)


def test_lengths_that_a_request_brings() -> None:
    inputs, types = {"l": (BATCH,)}, {"l": TensorProto.INT32}
    network = recurrent("GRU", inputs=inputs, types=types, direction="bidirectional")
    compiled = kernels.compile_network(network, load_target(BEST))
    data = kernels.random_inputs(compiled.imported, 1)[0]
    for lengths in ([6, 1, 3], [2, 6, 5]):
        fed = [data, np.array(lengths, np.int32)]
        wanted = kernels.expected(network, ["x", "l"], fed)
        for ours, theirs in zip(kernels.run(compiled, fed), wanted, strict=True):
            assert kernels.error_of(ours, theirs) <= 1e-5
    kernels.run(compiled, [data, np.array([-5, 1 << 30, 0], np.int32)])


@OPERATORS
def test_clipping(operator: str) -> None:
    network = recurrent(operator, given="wrbhc", clip=0.3, direction="bidirectional")
    kernels.check(network, BEST, generic=True)


@pytest.mark.parametrize(("given", "coupled"), [("wrbp", 0), ("wrbhcp", 1)])
def test_peepholes_and_coupled_gates(given: str, coupled: int) -> None:
    network = recurrent("LSTM", given=given, input_forget=coupled, direction="bidirectional")
    kernels.check(network, BEST, generic=True)


@pytest.mark.parametrize(("late", "given"), [(0, "wr"), (1, "wr"), (1, "wrbl")])
def test_place_of_the_reset_gate(late: int, given: str) -> None:
    network = recurrent("GRU", given=given, linear_before_reset=late, clip=5.0)
    kernels.check(network, BEST, generic=True)


FUNCTIONS: list[tuple[str, list[float], list[float]]] = [
    ("Affine", [0.7], [0.1]),
    ("Elu", [0.8], []),
    ("HardSigmoid", [0.3], [0.4]),
    ("LeakyRelu", [0.2], []),
    ("Relu", [], []),
    ("ScaledTanh", [1.3], [0.6]),
    ("Sigmoid", [], []),
    ("Softplus", [], []),
    ("Softsign", [], []),
    ("Tanh", [], []),
    ("ThresholdedRelu", [0.2], []),
]


def test_activation_functions() -> None:
    constants: dict[str, np.ndarray] = {}
    nodes, names = [], []
    for number, (name, alpha, beta) in enumerate(FUNCTIONS):
        parameters: dict[str, Any] = {}
        if alpha:
            parameters["activation_alpha"] = alpha
        if beta:
            parameters["activation_beta"] = beta
        # Clipped far out: a plain node would be spelled out by the importer.
        one = recurrent("RNN", given="wrb", activations=[name], clip=99.0, **parameters)
        node = one.graph.node[0]
        node.output[:] = [f"y{number}"]
        nodes.append(node)
        names.append(f"y{number}")
        constants |= {t.name: onnx.numpy_helper.to_array(t) for t in one.graph.initializer}
    inputs = {"x": (STEPS, BATCH, WIDTH)}
    kernels.check(inferred.network(nodes, inputs, names, constants, opset=14), BEST, generic=True)


def test_activation_functions_of_each_gate() -> None:
    names = ["HardSigmoid", "Softsign", "ScaledTanh"]
    parameters: dict[str, Any] = {"activation_alpha": [0.3, 1.2], "activation_beta": [0.45, 0.7]}
    network = recurrent("LSTM", given="wrb", activations=names, **parameters)
    kernels.check(network, BEST, generic=True)


@OPERATORS
def test_batch_first(operator: str) -> None:
    # ONNX Runtime has no such layout: the same with the axes in their usual order.
    network = recurrent(operator, given="wrbhc", layout=1, direction="bidirectional")
    usual = recurrent(operator, given="wrb", direction="bidirectional")
    for tensor in network.graph.initializer:
        if tensor.name in "hc":
            array = np.ascontiguousarray(onnx.numpy_helper.to_array(tensor).swapaxes(0, 1))
            usual.graph.initializer.append(onnx.numpy_helper.from_array(array, tensor.name))
            usual.graph.node[0].input["hc".index(tensor.name) + 5] = tensor.name
    compiled = kernels.compile_network(network, load_target(BEST))
    inputs = kernels.random_inputs(compiled.imported, 1)
    y, *states = kernels.expected(usual, ["x"], [inputs[0].swapaxes(0, 1).copy()])
    wanted = [y.transpose(2, 0, 1, 3), *(state.swapaxes(0, 1) for state in states)]
    for ours, theirs in zip(kernels.run(compiled, inputs), wanted, strict=True):
        assert kernels.error_of(ours, theirs) <= 1e-5


@OPERATORS
def test_weights_that_a_request_brings(operator: str) -> None:
    gates = GATES[operator] * 7
    inputs = {"w": (1, gates, WIDTH), "r": (1, gates, 7), "b": (1, 2 * gates)}
    network = recurrent(operator, given="", inputs=inputs)
    kernels.check(network, BEST, generic=True)


def test_more_steps_than_are_unrolled() -> None:
    network = recurrent("GRU", given="wrb", steps=700, hidden=6)
    kernels.check(network, BEST, generic=True)


@OPERATORS
@pytest.mark.parametrize("profile", kernels.PROFILES)
@pytest.mark.parametrize(("hidden", "batch"), [(1, 1), (5, 2), (16, 4), (21, 5), (32, 9), (7, 17)])
def test_sizes_that_fill_panels_and_blocks_or_not(
    operator: str, hidden: int, batch: int, profile: str
) -> None:
    network = recurrent(
        operator, hidden=hidden, batch=batch, steps=FEW_STEPS + 1, direction="bidirectional"
    )
    kernels.check(network, profile, generic=True)


@pytest.mark.parametrize("profile", ["x86-64-v2", "x86-64-v4", "raspberrypi3", "riscv64-generic"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sums_of_a_step_fit_the_registers(profile: str, dtype: str) -> None:
    target = load_target(profile)
    tiling = Tiling.of(target, dtype)
    for entries in range(1, tiling.entries + 1):
        sums = entries * tiling.vectors * tiling.turns(entries)
        others = tiling.vectors + 1  # a row of R's panel, and an element of a state
        assert sums + others <= target.vector_registers or entries == tiling.turns(entries) == 1
    assert tiling.entries * tiling.vectors >= 8 or 3 * tiling.vectors > target.vector_registers - 1


@pytest.mark.parametrize("profile", kernels.PROFILES)
def test_plain_layer_for_every_processor(profile: str) -> None:
    network = recurrent("LSTM", hidden=20, batch=1, steps=FEW_STEPS + 1)
    kernels.check(network, profile, generic=True)


@pytest.mark.parametrize(
    ("batch", "direction"), [(1, "bidirectional"), (9, "forward"), (6, "bidirectional")]
)
def test_threads_give_the_same_bytes_as_one(batch: int, direction: str) -> None:
    network = recurrent("GRU", hidden=24, batch=batch, steps=30, direction=direction)
    _, module = kernels.lowered(network, load_target(BEST))
    assert "T.parallel" in module.script()
    compiled = kernels.compile_network(network, load_target(BEST))
    kernels.check_threads(compiled, 2, 4)


def test_half_and_double_precision() -> None:
    for dtype, tolerance in ((np.float16, 3e-3), (np.float64, 1e-6)):
        network = recurrent("LSTM", given="wrbp", clip=3.0)
        for tensor in network.graph.initializer:
            array = onnx.numpy_helper.to_array(tensor)
            tensor.CopyFrom(onnx.numpy_helper.from_array(array.astype(dtype), tensor.name))
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        for value in (*network.graph.input, *network.graph.output):
            value.type.tensor_type.elem_type = kind
        compiled = kernels.compile_network(network, load_target(BEST))
        (given,) = kernels.random_inputs(compiled.imported, 1)
        single = recurrent("LSTM", given="wrbp", clip=3.0)
        wanted = kernels.expected(single, ["x"], [given.astype(np.float32)])
        for ours, theirs in zip(kernels.run(compiled, [given]), wanted, strict=True):
            assert ours.dtype == dtype
            assert kernels.error_of(ours.astype(np.float32), theirs) <= tolerance

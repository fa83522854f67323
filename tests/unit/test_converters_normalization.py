from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from edgepack.targets import load_target
from tests import inferred, kernels, networks
from tests.kernels import weights

BEST = kernels.PROFILES[-1]
DATA = (2, 3, 5, 7)
HALF = TensorProto.FLOAT16


def normalised(
    operator: str, shape: tuple[int, ...], parameters: dict[str, np.ndarray], **attributes: Any
) -> onnx.ModelProto:
    opset = attributes.pop("opset", 23)
    types = attributes.pop("types", {})
    return inferred.several(
        operator, {"x": shape}, [attributes], parameters, opset=opset, types=types
    )


@pytest.mark.parametrize(
    ("axis", "outputs"), [(0, "y"), (1, "ym"), (-1, "y"), (0, "ymi"), (2, "ymi"), (-1, "ymi")]
)
def test_layer_norm(axis: int, outputs: str) -> None:
    extents = DATA[axis:]
    node = helper.make_node("LayerNormalization", ["x", "s", "b"], list(outputs), axis=axis)
    parameters = {"s": weights(*extents), "b": weights(*extents) + 1}
    kernels.check(inferred.network([node], {"x": DATA}, outputs, parameters), BEST)


@pytest.mark.parametrize(("scale", "offset"), [((7,), None), ((1,), (7,)), ((5, 1), (1, 7))])
def test_layer_norm_with_parameters_that_spread(scale: Any, offset: Any) -> None:
    parameters = {"s": weights(*scale) + 1}
    if offset is not None:
        parameters["b"] = weights(*offset)
    kernels.check(normalised("LayerNormalization", DATA, parameters, axis=2), BEST)


def test_layer_norm_in_half_precision() -> None:
    parameters = {"s": weights(64).astype(np.float16) + 1, "b": weights(64).astype(np.float16)}
    network = normalised("LayerNormalization", (3, 64), parameters, types={"x": HALF})
    kernels.check(network, BEST, tolerance=2e-3)


def test_layer_norm_in_double_precision() -> None:
    node = helper.make_node("LayerNormalization", ["x", "s"], ["y"])
    parameters = {"s": weights(7).astype(np.float64)}
    types = {"x": TensorProto.DOUBLE}
    network = inferred.network([node], {"x": DATA}, "y", parameters, types=types)
    kernels.check(network, BEST, tolerance=1e-6)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_rms_norm(axis: int) -> None:
    parameters = {"s": weights(*DATA[axis:]) + 1}
    kernels.check(normalised("RMSNormalization", DATA, parameters, axis=axis), BEST)


def test_rms_norm_with_a_scale_of_another_shape_or_type() -> None:
    kernels.check(normalised("RMSNormalization", DATA, {"s": weights(5, 1)}, axis=2), BEST)
    single = {"s": weights(7).astype(np.float16)}
    network = normalised("RMSNormalization", DATA, single, types={"x": HALF})
    kernels.check(network, BEST, tolerance=2e-3)


@pytest.mark.parametrize(
    ("shape", "groups"),
    [
        ((2, 6, 5, 7), 2),
        ((2, 6, 5, 7), 1),
        ((1, 6, 11), 3),
        ((2, 6, 3, 4, 5), 6),
        ((3, 6, 1, 1), 2),
    ],
)
def test_group_norm(shape: tuple[int, ...], groups: int) -> None:
    parameters = {"s": weights(6) + 1, "b": weights(6)}
    options: dict[str, Any] = {"num_groups": groups, "epsilon": 1e-3}
    nodes = [helper.make_node("GroupNormalization", list("xsb"), ["y"], **options)]
    network = networks.model(nodes, {"x": shape}, {"y": shape}, parameters, opset=21)
    # A mean of means rounds otherwise than one long sum.
    kernels.check(network, BEST, tolerance=3e-5)


def test_group_norm_among_convolutions_moves_nothing() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("GroupNormalization", ["c", "s", "b"], ["n"], num_groups=4),
        helper.make_node("Relu", ["n"], ["r"]),
        helper.make_node("Conv", ["r", "v"], ["y"]),
    ]
    parameters = {n: weights(8) for n in "sb"} | {
        "w": weights(8, 3, 3, 3),
        "v": weights(4, 8, 1, 1),
    }
    output = {"y": (1, 4, 9, 11)}
    network = networks.model(nodes, {"x": (1, 3, 9, 11)}, output, parameters, opset=21)
    assert_moves_nothing(network)


def test_group_norm_as_pytorch_spells_it_moves_nothing() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Reshape", ["c", "groups"], ["g"]),
        helper.make_node("InstanceNormalization", ["g", "ones", "zeros"], ["i"], epsilon=1e-3),
        helper.make_node("Reshape", ["i", "image"], ["n"]),
        helper.make_node("Mul", ["n", "s"], ["m"]),
        helper.make_node("Add", ["m", "b"], ["a"]),
        helper.make_node("Conv", ["a", "v"], ["y"]),
    ]
    parameters = {
        "w": weights(8, 3, 3, 3),
        "groups": np.array([2, 4, -1]),
        "ones": np.ones(4, np.float32),
        "zeros": np.zeros(4, np.float32),
        "image": np.array([2, 8, 9, 11]),
        "s": weights(8, 1, 1) + 1,
        "b": weights(8, 1, 1),
        "v": weights(4, 8, 1, 1),
    }
    assert_moves_nothing(
        networks.model(nodes, {"x": (2, 3, 9, 11)}, {"y": (2, 4, 9, 11)}, parameters)
    )


def assert_moves_nothing(network: onnx.ModelProto) -> None:
    """Right, and nothing is transposed but the network's input and its output."""
    compiled, _ = kernels.check(network, BEST)
    symbols = [call.symbol or "" for call in compiled.plan.calls]
    assert len([symbol for symbol in symbols if "transpose" in symbol]) <= 2, symbols


@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (2, 3, 11), (1, 3, 4, 5, 6)])
def test_instance_norm(shape: tuple[int, ...]) -> None:
    parameters = {"s": weights(3) + 1, "b": weights(3)}
    kernels.check(normalised("InstanceNormalization", shape, parameters), BEST)


@pytest.mark.parametrize("operator", ["InstanceNormalization", "LayerNormalization"])
def test_values_far_from_zero_keep_their_digits(operator: str) -> None:
    nodes = [
        helper.make_node("Add", ["x", "far"], ["f"]),
        helper.make_node(operator, ["f", "s", "b"], ["y"], epsilon=1e-5),
    ]
    extent = 2 if operator == "InstanceNormalization" else 96
    parameters = {
        "far": np.float32(3000),
        "s": np.ones(extent, np.float32),
        "b": np.zeros(extent, np.float32),
    }
    network = inferred.network(nodes, {"x": (1, 2, 96)}, "y", parameters)
    compiled = kernels.compile_network(network, load_target(BEST))
    (given,) = kernels.random_inputs(compiled.imported, 1)
    (answer,) = kernels.run(compiled, [given])
    exact = (given + np.float32(3000)).astype(np.float64)
    centred = exact - exact.mean(axis=-1, keepdims=True)
    wanted = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(answer, wanted, atol=1e-3)


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 5), (2, 6, 5, 7), (1, 6, 2, 3, 4)])
def test_batch_norm(shape: tuple[int, ...]) -> None:
    parameters = {n: weights(6) for n in "sbm"} | {"v": np.abs(weights(6)) + 0.1}
    kernels.check(normalised("BatchNormalization", shape, parameters, opset=15), BEST)


def test_batch_norm_with_computed_parameters() -> None:
    node = helper.make_node("BatchNormalization", list("xsbmv"), ["y"], epsilon=0.01)
    inputs = {"x": (2, 3, 4, 5), **dict.fromkeys("sbmv", (3,))}
    network = inferred.network([node], inputs, "y")
    kernels.check(network, BEST, positive=True)


def test_batch_norm_of_each_element() -> None:
    parameters = {n: weights(3, 4, 5) for n in "sbm"} | {"v": np.abs(weights(3, 4, 5)) + 0.1}
    network = normalised("BatchNormalization", (2, 3, 4, 5), parameters, opset=7, spatial=0)
    kernels.check(network, BEST)


def test_batch_norm_in_training_mode() -> None:
    node = helper.make_node(
        "BatchNormalization", list("xsbmv"), list("ynw"), training_mode=1, momentum=0.7
    )
    parameters = {n: weights(3) for n in "sbm"} | {"v": np.abs(weights(3)) + 0.1}
    network = inferred.network([node], {"x": (2, 3, 4, 5)}, "ynw", parameters, opset=15)
    compiled = kernels.compile_network(network, load_target(BEST))
    (given,) = kernels.random_inputs(compiled.imported, 1)
    answer = kernels.run(compiled, [given])
    wanted = ReferenceEvaluator(network).run(None, {"x": given})
    for ours, theirs in zip(answer, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("axis", "power"), [(0, 1), (0, 2), (2, 2), (-1, 1)])
def test_lp_norm(axis: int, power: int) -> None:
    kernels.check(normalised("LpNormalization", DATA, {}, axis=axis, p=power, opset=13), BEST)


def test_lp_norm_of_nothing_is_nothing() -> None:
    nodes = [
        helper.make_node("Mul", ["x", "mask"], ["m"]),
        helper.make_node("LpNormalization", ["m"], ["y"], axis=-1),
    ]
    mask = np.array([[1.0], [0.0], [1.0]], np.float32)
    kernels.check(inferred.network(nodes, {"x": (3, 8)}, "y", {"mask": mask}), BEST)


@pytest.mark.parametrize("axes", [None, [1], [0, -1], [0, 1, 2, 3]])
def test_mean_variance_norm(axes: list[int] | None) -> None:
    attributes: dict[str, Any] = {} if axes is None else {"axes": axes}
    nodes = [helper.make_node("MeanVarianceNormalization", ["x"], ["y"], **attributes)]
    kernels.check(networks.model(nodes, {"x": DATA}, {"y": DATA}, opset=13), BEST)


@pytest.mark.parametrize("size", [1, 3, 9])
def test_local_response_norm(size: int) -> None:
    options = {"size": size, "alpha": 0.3, "beta": 0.6, "bias": 1.5}
    kernels.check(normalised("LRN", (2, 6, 5, 7), {}, opset=13, **options), BEST)


def test_local_response_norm_over_an_even_number_without_a_bias() -> None:
    network = normalised("LRN", (1, 6, 5, 7), {}, opset=13, size=4, alpha=0.3, beta=1.25, bias=0.0)
    compiled = kernels.compile_network(network, load_target(BEST))
    (given,) = kernels.random_inputs(compiled.imported, 1)
    (answer,) = kernels.run(compiled, [given])
    exact = given.astype(np.float64)
    squares = np.pad(exact**2, [(0, 0), (1, 2), (0, 0), (0, 0)])
    sums = sum(squares[:, step : step + 6] for step in range(4))
    wanted = exact / (0.3 / 4 * sums) ** 1.25
    np.testing.assert_allclose(answer, wanted, rtol=1e-5)

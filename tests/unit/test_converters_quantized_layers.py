"""DequantizeLinear, an operator, QuantizeLinear: the integers of ONNX Runtime, which joins them too."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from edgepack.targets import load_target
from tests import inferred, kernels
from tests.kernels import weights, whole

BEST = kernels.PROFILES[-1]
XS, YS = np.float32(0.021), np.float32(0.043)


def quantised(name: str, scale: str, zero_point: str, result: str) -> list[onnx.NodeProto]:
    """``name`` there and back."""
    return [
        helper.make_node("QuantizeLinear", [name, scale, zero_point], [f"{name}_q"]),
        helper.make_node("DequantizeLinear", [f"{name}_q", scale, zero_point], [result]),
    ]


def layer(
    operator: onnx.NodeProto,
    shape: Sequence[int],
    parameters: dict[str, Any],
    between: Sequence[onnx.NodeProto] = (),
    *,
    dtype: str = "uint8",
    axis: int = 0,
    outputs: str = "y",
) -> onnx.ModelProto:
    """x, quantised, through ``operator`` (a, w and maybe b to c) and what is ``between`` (c to r)."""
    nodes = [*quantised("x", "xs", "xz", "a")]
    if "wq" in parameters:
        inputs = ["wq", "ws", "wz"]
        nodes.append(helper.make_node("DequantizeLinear", inputs, ["w"], axis=axis))
    if "bq" in parameters:
        inputs = ["bq", "bs"]
        nodes.append(helper.make_node("DequantizeLinear", inputs, ["b"], axis=0))
    last = "r" if between else "c"
    nodes += [operator, *between, helper.make_node("QuantizeLinear", [last, "ys", "yz"], ["y"])]
    common = {
        "xs": XS,
        "xz": np.array(121 if dtype == "uint8" else -7, dtype),
        "ys": YS,
        "yz": np.array(13 if dtype == "uint8" else -99, dtype),
    }
    return inferred.network(nodes, {"x": shape}, outputs, common | parameters)


def kernel(*shape: int, by_channel: bool = True, axis: int = 0) -> dict[str, Any]:
    """Weights of about unit gain, with a scale for each channel along ``axis`` or for all."""
    values = whole("int8", *shape) // 2
    fan_in = max(values.size // shape[axis], 1)
    count = shape[axis] if by_channel else 1
    scale = np.asarray((np.arange(count) % 5 + 3) / (400 * np.sqrt(fan_in)), np.float32)
    if not by_channel:
        scale = scale.reshape(())
    return {"wq": values, "ws": scale, "wz": np.zeros(scale.shape, np.int8)}


def bias(parameters: dict[str, Any], channels: int) -> dict[str, Any]:
    """Of the scale that products have, as quantisers make it."""
    values = np.random.default_rng(5).integers(-900, 900, channels)
    scale = np.asarray(XS * parameters["ws"], np.float32)
    return parameters | {
        "bq": np.asarray(values, np.int32),
        "bs": np.broadcast_to(scale, (channels,)).copy() if scale.ndim else scale,
    }


CONVOLUTIONS: dict[str, tuple[Sequence[int], Sequence[int], dict[str, Any]]] = {
    "3x3": ((1, 6, 9, 11), (12, 6, 3, 3), {"pads": [1, 1, 1, 1]}),
    "1x1": ((2, 24, 5, 7), (17, 24, 1, 1), {}),
    "strided": ((1, 3, 17, 15), (8, 3, 3, 3), {"strides": [2, 2], "pads": [0, 1, 1, 0]}),
    "depthwise": ((1, 16, 9, 9), (16, 1, 3, 3), {"group": 16, "pads": [1, 1, 1, 1]}),
    "groups": ((1, 8, 7, 7), (12, 4, 3, 3), {"group": 2, "dilations": [2, 2]}),
    "signal": ((1, 6, 33), (5, 6, 3), {"pads": [1, 1]}),
}


@pytest.mark.parametrize("by_channel", [True, False])
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution(name: str, dtype: str, by_channel: bool) -> None:
    shape, extents, options = CONVOLUTIONS[name]
    parameters = bias(kernel(*extents, by_channel=by_channel), extents[0])
    operator = helper.make_node("Conv", ["a", "w", "b"], ["c"], **options)
    kernels.check(layer(operator, shape, parameters, dtype=dtype), BEST, tolerance=0)


@pytest.mark.parametrize("given", ["none", "float"])
def test_convolution_with_another_bias(given: str) -> None:
    operands = ["a", "w"] if given == "none" else ["a", "w", "b"]
    parameters = kernel(12, 6, 3, 3) | ({"b": weights(12)} if given == "float" else {})
    operator = helper.make_node("Conv", operands, ["c"])
    kernels.check(layer(operator, (1, 6, 9, 11), parameters), BEST, tolerance=0)


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("by_channel", [True, False])
def test_gemm(transposed: int, by_channel: bool) -> None:
    shape, axis = ((9, 30), 0) if transposed else ((30, 9), 1)
    parameters = bias(kernel(*shape, by_channel=by_channel, axis=axis), 9)
    operator = helper.make_node("Gemm", ["a", "w", "b"], ["c"], transB=transposed)
    kernels.check(layer(operator, (4, 30), parameters, axis=axis), BEST, tolerance=0)


def test_gemm_with_factors_is_left_to_its_definition() -> None:
    operator = helper.make_node("Gemm", ["a", "w"], ["c"], alpha=0.5)
    network = layer(operator, (4, 30), kernel(30, 9, by_channel=False))
    kernels.check(network, BEST, tolerance=0)


@pytest.mark.parametrize("by_channel", [True, False])
def test_matrix_product(by_channel: bool) -> None:
    parameters = kernel(300, 17, by_channel=by_channel, axis=1)
    operator = helper.make_node("MatMul", ["a", "w"], ["c"])
    kernels.check(layer(operator, (2, 5, 300), parameters, axis=1), BEST, tolerance=0)


@pytest.mark.parametrize("shapes", [((2, 5, 24), (2, 24, 7)), ((24,), (24,)), ((5, 24), (24,))])
def test_product_of_what_requests_bring(shapes: tuple[Sequence[int], Sequence[int]]) -> None:
    nodes = [
        *quantised("x", "xs", "xz", "a"),
        *quantised("z", "ys", "yz", "b"),
        helper.make_node("MatMul", ["a", "b"], ["c"]),
        helper.make_node("QuantizeLinear", ["c", "ys", "yz"], ["y"]),
    ]
    parameters = {"xs": XS, "xz": np.uint8(119), "ys": YS, "yz": np.uint8(130)}
    network = inferred.network(nodes, {"x": shapes[0], "z": shapes[1]}, "y", parameters)
    kernels.check(network, BEST, tolerance=0)


def clip(low: float, high: float) -> tuple[onnx.NodeProto, dict[str, Any]]:
    node = helper.make_node("Clip", ["c", "low", "high"], ["r"])
    return node, {"low": np.float32(low), "high": np.float32(high)}


ACTIVATIONS: dict[str, tuple[onnx.NodeProto, dict[str, Any]]] = {
    "relu": (helper.make_node("Relu", ["c"], ["r"]), {}),
    "cut within the range": clip(-0.2, 1.5),
    "cut beyond the range": clip(-100, 100),
    "cut to one side": clip(0.7, 100),
}


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_cut_the_integers(name: str, dtype: str) -> None:
    node, ends = ACTIVATIONS[name]
    parameters = bias(kernel(12, 6, 3, 3), 12) | ends
    operator = helper.make_node("Conv", ["a", "w", "b"], ["c"])
    network = layer(operator, (1, 6, 9, 11), parameters, [node], dtype=dtype)
    kernels.check(network, BEST, tolerance=0)


def test_one_activation_after_the_other() -> None:
    first = helper.make_node("Clip", ["c", "low", "high"], ["m"])
    between = [first, helper.make_node("Relu", ["m"], ["r"])]
    ends = {"low": np.float32(-3), "high": np.float32(-1)}
    operator = helper.make_node("Conv", ["a", "w"], ["c"])
    network = layer(operator, (1, 6, 9, 11), kernel(12, 6, 3, 3) | ends, between)
    compiled = kernels.compile_network(network, load_target(BEST))
    (answer,) = kernels.run(compiled, kernels.random_inputs(compiled.imported, 1))
    assert np.unique(answer).tolist() == [13]  # the zero point: all below 0


def test_scales_below_zero_are_left_to_the_definition() -> None:
    parameters = kernel(12, 6, 3, 3, by_channel=False) | {"b": weights(12)}
    parameters["ws"] = -parameters["ws"]
    operator = helper.make_node("Conv", ["a", "w", "b"], ["c"])
    between = [helper.make_node("Relu", ["c"], ["r"])]
    kernels.check(layer(operator, (1, 6, 9, 11), parameters, between), BEST, tolerance=0)


@pytest.mark.parametrize("name", ["Add", "Mul"])
def test_element_by_element(name: str) -> None:
    nodes = [
        *quantised("x", "xs", "xz", "a"),
        *quantised("z", "ys", "yz", "b"),
        helper.make_node(name, ["a", "b"], ["c"]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("QuantizeLinear", ["r", "ys", "yz"], ["y"]),
    ]
    parameters = {"xs": XS, "xz": np.uint8(119), "ys": YS, "yz": np.uint8(13)}
    inputs = {"x": (2, 6, 5, 7), "z": (2, 6, 1, 1)}
    kernels.check(inferred.network(nodes, inputs, "y", parameters), BEST, tolerance=0)


MOVEMENTS: dict[str, tuple[onnx.NodeProto, dict[str, Any]]] = {
    "MaxPool": (
        helper.make_node("MaxPool", ["a"], ["c"], kernel_shape=[3, 3], strides=[2, 2]),
        {},
    ),
    "Flatten": (helper.make_node("Flatten", ["a"], ["c"]), {}),
    "Reshape": (helper.make_node("Reshape", ["a", "t"], ["c"]), {"t": kernels.integers(2, -1, 9)}),
    "Transpose": (helper.make_node("Transpose", ["a"], ["c"], perm=[0, 2, 3, 1]), {}),
    "Unsqueeze": (helper.make_node("Unsqueeze", ["a", "t"], ["c"]), {"t": kernels.integers(1)}),
}


@pytest.mark.parametrize("scale", [XS, YS])
@pytest.mark.parametrize("name", MOVEMENTS)
def test_what_only_moves_numbers(name: str, scale: np.float32) -> None:
    operator, parameters = MOVEMENTS[name]
    network = layer(operator, (2, 6, 7, 9), parameters | {"ys": scale})
    kernels.check(network, BEST, tolerance=0)


def test_concatenation_of_other_scales() -> None:
    nodes = [
        *quantised("x", "xs", "xz", "a"),
        *quantised("z", "ys", "yz", "b"),
        *quantised("v", "ys", "xz", "d"),
        helper.make_node("Concat", ["a", "b", "d"], ["c"], axis=1),
        helper.make_node("QuantizeLinear", ["c", "ys", "yz"], ["y"]),
    ]
    parameters = {"xs": XS, "xz": np.uint8(119), "ys": YS, "yz": np.uint8(13)}
    inputs = {"x": (2, 6, 5, 7), "z": (2, 3, 5, 7), "v": (2, 16, 5, 7)}
    kernels.check(inferred.network(nodes, inputs, "y", parameters), BEST, tolerance=0)


@pytest.mark.parametrize("scale", [XS, YS])
def test_average_over_everything(scale: np.float32) -> None:
    operator = helper.make_node("GlobalAveragePool", ["a"], ["c"])
    kernels.check(layer(operator, (2, 6, 7, 9), {"ys": scale}), BEST, tolerance=0)


@pytest.mark.parametrize("scale", [XS, YS])
def test_ties_of_averages_go_to_the_even_number_from_the_zero_point(scale: np.float32) -> None:
    """ONNX Runtime adds up what is scaled, and is a step off at every other tie."""
    operator = helper.make_node("AveragePool", ["a"], ["c"], kernel_shape=[2, 2], strides=[2, 2])
    network = layer(operator, (2, 6, 8, 6), {"ys": scale})
    compiled = kernels.compile_network(network, load_target(BEST))
    (given,) = kernels.random_inputs(compiled.imported, 1)
    (answer,) = kernels.run(compiled, [given])
    steps = np.clip(np.rint(given / XS), -121, 134).reshape(2, 6, 4, 2, 3, 2)
    mean = steps.mean(axis=(3, 5), dtype=np.float32) * np.float32(XS / scale)
    assert (mean % 1 == 0.5).any() == (scale == XS)
    np.testing.assert_array_equal(answer, np.clip(np.rint(mean) + 13, 0, 255))


def test_what_others_read_too_is_computed_once() -> None:
    operator = helper.make_node("Conv", ["a", "w"], ["c"])
    network = layer(operator, (1, 16, 9, 11), kernel(16, 16, 1, 1), outputs="cy")
    compiled, _ = kernels.check(network, BEST)
    assert compiled.rules_called.count("matmul") == 1


def two_layers(channels: int, image: int, *, steps: bool = True) -> onnx.ModelProto:
    """Two convolutions, one behind the other, with quantisation or without."""
    shape, extents = (1, channels, image, image), (channels, channels, 3, 3)
    parameters = kernel(*extents) | {"xs": XS, "xz": np.uint8(121), "ys": YS, "yz": np.uint8(13)}
    options: dict[str, Any] = {"pads": [1, 1, 1, 1]}
    nodes = [helper.make_node("DequantizeLinear", ["wq", "ws", "wz"], ["w"], axis=0)]
    if steps:
        nodes += [
            *quantised("x", "xs", "xz", "a"),
            helper.make_node("Conv", ["a", "w"], ["c"], **options),
            *quantised("c", "ys", "yz", "d"),
            helper.make_node("Conv", ["d", "w"], ["e"], **options),
            *quantised("e", "ys", "yz", "y"),
        ]
    else:
        nodes += [
            helper.make_node("Conv", ["x", "w"], ["c"], **options),
            helper.make_node("Conv", ["c", "w"], ["y"], **options),
        ]
    return inferred.network(nodes, {"x": shape}, "y", parameters)


def test_between_layers_are_whole_numbers_without_types_of_integers_or_divisions() -> None:
    network = two_layers(8, 9)
    kernels.check(network, BEST, tolerance=0)
    loops = kernels.loops_of(network, BEST)
    assert loops.count("12582912.0") >= 3  # adding 1.5 * 2^23 rounds
    assert "int" not in loops.replace("T.int64", "").replace("_int", "")
    layers = [text for text in loops.split("@T.prim_func") if "sums" in text]
    assert layers
    assert not any(re.search(r"[)\]] / ", text) for text in layers)


def test_winograds_transforms_of_whole_numbers_are_those_that_stay_exact() -> None:
    compiled, _ = kernels.check(two_layers(64, 17), BEST, tolerance=0)
    assert compiled.rules_called.count("winograd 2x2") == 2
    compiled, _ = kernels.check(two_layers(64, 17, steps=False), BEST, tolerance=3e-5)
    assert (
        "winograd 2x2" not in compiled.rules_called
    )  # thirds are among the factors of faster ones


def test_another_zero_point_on_the_way_back_stays() -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "p"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "r"], ["y"]),
        helper.make_node("DequantizeLinear", ["q", "s", "p"], ["z"]),
    ]
    parameters = {"s": np.float32(0.02), "p": np.int8(3), "r": np.int8(5)}
    network = inferred.network(nodes, {"x": (2, 300)}, "qyz", parameters)
    kernels.check(network, BEST, tolerance=0)

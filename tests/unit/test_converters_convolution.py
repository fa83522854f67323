from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests import inferred, kernels
from tests.kernels import weights

BEST = kernels.PROFILES[-1]


def convolutions(
    operator: str,
    shape: tuple[int, ...],
    kernel: tuple[int, ...],
    options: list[dict[str, Any]],
    *,
    bias: int = 0,
) -> onnx.ModelProto:
    parameters = {"w": weights(*kernel)} | ({"b": weights(bias)} if bias else {})
    return inferred.several(operator, {"x": shape}, options, parameters)


@pytest.mark.parametrize(
    ("shape", "kernel", "bias"),
    [
        ((2, 6, 17), (4, 6, 3), 0),
        ((1, 6, 13, 9), (4, 6, 3, 2), 4),
        ((2, 6, 7, 6, 5), (4, 6, 2, 3, 2), 4),
    ],
)
def test_convolution_with_every_attribute(
    shape: tuple[int, ...], kernel: tuple[int, ...], bias: int
) -> None:
    rank = len(shape) - 2
    options: list[dict[str, Any]] = [
        {},
        {"strides": [2] * rank, "pads": [1, 0, 2, 1, 1, 0][: 2 * rank]},
        {"dilations": [2] * rank, "pads": [2] * 2 * rank},
        {"auto_pad": "SAME_UPPER", "strides": [2] * rank},
        {"auto_pad": "SAME_LOWER", "strides": [1] * rank},
        {"auto_pad": "VALID", "kernel_shape": list(kernel[2:])},
    ]
    kernels.check(convolutions("Conv", shape, kernel, options, bias=bias), BEST)


def test_volumes_are_moved_at_the_edges_of_the_network_alone() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1] * 6),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2, 2], strides=[2, 2, 2]),
        helper.make_node("Conv", ["p", "v"], ["d"], pads=[1] * 6, strides=[1, 2, 2]),
        helper.make_node("GlobalAveragePool", ["d"], ["y"]),
    ]
    parameters = {"w": weights(8, 3, 3, 3, 3), "v": weights(16, 8, 3, 3, 3)}
    network = inferred.network(nodes, {"x": (2, 3, 6, 12, 10)}, "y", parameters)
    compiled, _ = kernels.check(network, BEST)
    symbols = [call.symbol or "" for call in compiled.plan.calls]
    assert len([symbol for symbol in symbols if "transpose" in symbol]) <= 1, symbols


@pytest.mark.parametrize(
    ("shape", "kernel", "groups"),
    [
        ((1, 6, 11), (4, 3, 3), 2),
        ((1, 6, 9, 7), (12, 1, 3, 3), 6),
        ((1, 6, 5, 6, 7), (4, 3, 2, 2, 2), 2),
        ((1, 6, 5, 6, 7), (6, 1, 3, 3, 3), 6),
    ],
)
def test_grouped_convolution(shape: tuple[int, ...], kernel: tuple[int, ...], groups: int) -> None:
    options = [{"group": groups, "auto_pad": "SAME_UPPER"}]
    kernels.check(convolutions("Conv", shape, kernel, options, bias=kernel[0]), BEST)


def test_weights_that_a_request_brings() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["y"], pads=[1, 1, 1, 1]),
        helper.make_node("ConvTranspose", ["x", "v"], ["z"], dilations=[2, 3], strides=[2, 1]),
        helper.make_node("Conv", ["s", "u"], ["t"], dilations=[2]),
    ]
    inputs = {
        "x": (1, 3, 7, 5),
        "w": (4, 3, 3, 3),
        "b": (4,),
        "v": (3, 2, 2, 2),
        "s": (2, 3, 9),
        "u": (5, 3, 3),
    }
    kernels.check(inferred.network(nodes, inputs, "yzt"), BEST)


def test_half_precision_adds_in_single_precision() -> None:
    nodes = [helper.make_node("Conv", ["x", "w", "b"], ["y"], pads=[1, 1, 1, 1])]
    parameters = {"w": weights(8, 64, 3, 3).astype(np.float16), "b": np.ones(8, np.float16)}
    types = {"x": TensorProto.FLOAT16}
    network = inferred.network(nodes, {"x": (1, 64, 8, 8)}, "y", parameters, types=types)
    kernels.check(network, BEST, tolerance=1e-3)


TRANSPOSED: list[dict[str, Any]] = [
    {},
    {"strides": [3, 2], "pads": [1, 0, 0, 2]},
    {"strides": [3, 2], "output_padding": [2, 1]},
    {"strides": [2, 2], "output_padding": [1, 1], "pads": [1, 1, 1, 1]},
    {"strides": [3, 2], "output_shape": [14, 9]},
    {"strides": [3, 2], "output_shape": [17, 10]},
    {"strides": [2, 3], "output_shape": [9, 12], "auto_pad": "SAME_UPPER"},
    {"strides": [2, 3], "auto_pad": "SAME_LOWER"},
    {"strides": [2, 3], "auto_pad": "SAME_UPPER"},
    {"strides": [2, 1], "auto_pad": "VALID"},
    {"dilations": [2, 3]},
    {"dilations": [3, 1], "strides": [2, 2], "pads": [2, 1, 0, 1]},
]


def test_transposed_convolution_with_every_attribute() -> None:
    network = convolutions("ConvTranspose", (1, 6, 5, 4), (6, 4, 3, 3), TRANSPOSED, bias=4)
    kernels.check(network, BEST)


def test_transposed_convolution_of_volumes_with_every_attribute() -> None:
    options: list[dict[str, Any]] = [
        {"strides": [2, 2, 2]},
        {"strides": [3, 2, 1], "pads": [1, 0, 0, 2, 1, 1]},
        {"strides": [4, 2, 2], "output_padding": [3, 1, 0]},  # a phase without taps
        {"strides": [2, 1, 3], "pads": [1, 1, 0, 1, 0, 0], "output_padding": [1, 0, 1]},
        {"strides": [2, 2, 2], "output_shape": [7, 8, 8]},
        {"strides": [2, 3, 2], "auto_pad": "SAME_UPPER"},
        {"dilations": [2, 1, 3], "strides": [3, 1, 1], "pads": [3, 0, 1, 1, 0, 0]},
    ]
    network = convolutions("ConvTranspose", (2, 5, 4, 4, 4), (5, 3, 3, 2, 3), options, bias=3)
    kernels.check(network, BEST)


def test_transposed_convolution_of_volumes_is_that_of_images() -> None:
    options: list[dict[str, Any]] = [
        {"strides": [2, 2, 2]},
        {"strides": [2, 2, 2], "pads": [1] * 6},
    ]
    network = convolutions("ConvTranspose", (1, 16, 3, 5, 6), (16, 8, 4, 4, 4), options)
    compiled, _ = kernels.check(network, BEST)
    assert "transposed" in compiled.rules_called
    assert "reduction" not in compiled.rules_called


@pytest.mark.parametrize(
    ("shape", "groups"),
    [((2, 6, 9), 1), ((2, 6, 9), 6), ((1, 6, 5, 4), 2), ((1, 6, 3, 4, 5), 1), ((1, 6, 3, 4, 5), 2)],
)
def test_transposed_convolution_of_every_rank(shape: tuple[int, ...], groups: int) -> None:
    rank = len(shape) - 2
    kernel = (6, 2, *(3, 2, 3)[:rank])
    options: list[dict[str, Any]] = [
        {"group": groups},
        {"group": groups, "strides": [2, 3, 1][:rank], "pads": [1] * 2 * rank},
        {"group": groups, "strides": [2] * rank, "output_padding": [1] * rank},
        {"group": groups, "dilations": [2] * rank},
    ]
    network = convolutions("ConvTranspose", shape, kernel, options, bias=2 * groups)
    kernels.check(network, BEST)

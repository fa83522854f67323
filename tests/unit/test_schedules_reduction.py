from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from edgepack.targets import load_target
from tests import kernels, networks
from tests.kernels import integers, weights
from tests.networks import node

BEST = kernels.PROFILES[-1]
OPERATORS = (
    "ReduceMean",
    "ReduceMax",
    "ReduceMin",
    "ReduceProd",
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSumExp",
    "ReduceSumSquare",
)
SHAPES = [(5,), (1,), (3, 5), (17, 1), (1, 33), (3, 7, 5), (2, 3, 5, 7), (3, 1, 5, 1)]
AXES = [
    (shape, axes)
    for shape in SHAPES
    for count in range(1, len(shape) + 1)
    for axes in itertools.combinations(range(len(shape)), count)
]


def reductions(shape: Sequence[int], axes: Sequence[int], *, product: bool) -> onnx.ModelProto:
    """Every operator over ``axes``, the first half of them with the axes kept."""
    nodes, outputs = [], {}
    operators = [name for name in OPERATORS if product or name != "ReduceProd"]
    for number, operator in enumerate(operators):
        keep = int(2 * number < len(operators))
        nodes.append(node(operator, "x", operator, axes=list(axes), keepdims=keep))
        outputs[operator] = [
            1 if axis in axes else extent
            for axis, extent in enumerate(shape)
            if keep or axis not in axes
        ]
    nodes.append(node("ReduceSum", "x axes", "ReduceSum", keepdims=0))
    outputs["ReduceSum"] = [extent for axis, extent in enumerate(shape) if axis not in axes]
    return networks.model(nodes, {"x": list(shape)}, outputs, {"axes": integers(*axes)})


@pytest.mark.parametrize(("shape", "axes"), AXES, ids=str)
def test_every_reduction_over(shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    profile = kernels.PROFILES[AXES.index((shape, axes)) % len(kernels.PROFILES)]
    kernels.check(reductions(shape, axes, product=True), profile)


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((2, 1001), (1,)),
        ((1001, 3), (0,)),
        ((64, 31, 33), (1,)),
        ((64, 31, 33), (2,)),
        ((64, 31, 33), (0, 2)),
        ((64, 31, 33), (0, 1, 2)),
    ],
    ids=str,
)
def test_reductions_of_many(shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    kernels.check(reductions(shape, axes, product=False), BEST, rule="reduction")


def pooling(kind: str, image: Sequence[int], result: Sequence[int], **how: Any) -> onnx.ModelProto:
    return networks.model(
        [node(kind, "x", "y", **how)],
        {"x": [2, 13, *image]},
        {"y": [2, 13, *result]},
    )


POOLING: dict[str, tuple[list[int], list[int], dict[str, Any]]] = {
    "2x2": ([7, 9], [3, 4], {"kernel_shape": [2, 2], "strides": [2, 2]}),
    "padded": (
        [7, 9],
        [4, 5],
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
    ),
    "uneven": (
        [13, 9],
        [14, 4],
        {"kernel_shape": [3, 2], "strides": [1, 3], "pads": [1, 0, 2, 1]},
    ),
    "rounded up": (
        [7, 8],
        [3, 4],
        {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1},
    ),
    "padded and rounded up": (
        [8, 8],
        [5, 5],
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4, "ceil_mode": 1},
    ),
    "5x5 in place": ([5, 5], [5, 5], {"kernel_shape": [5, 5], "pads": [2, 2, 2, 2]}),
    "the whole map": ([7, 7], [1, 1], {"kernel_shape": [7, 7]}),
    "a signal": ([13], [6], {"kernel_shape": [3], "strides": [2], "pads": [1, 0]}),
    "a volume": ([4, 6, 7], [2, 3, 3], {"kernel_shape": [2, 2, 2], "strides": [2, 2, 2]}),
}


@pytest.mark.parametrize("kind", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize("name", POOLING)
def test_pooling(name: str, kind: str) -> None:
    image, result, how = POOLING[name]
    profile = kernels.PROFILES[list(POOLING).index(name) % len(kernels.PROFILES)]
    kernels.check(pooling(kind, image, result, **how), profile, rule="reduction")


def test_pooling_with_padding_counted_and_with_dilation() -> None:
    counted = {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 2, 1]}
    network = pooling("AveragePool", [7, 9], [4, 5], count_include_pad=1, **counted)
    kernels.check(network, BEST, rule="reduction")
    dilated = {"kernel_shape": [3, 3], "strides": [2, 1], "pads": [1, 2, 1, 2]}
    network = pooling("MaxPool", [9, 11], [4, 9], dilations=[2, 3], **dilated)
    kernels.check(network, BEST, rule="reduction")


@pytest.mark.parametrize("shape", [(2, 33, 7, 5), (1, 1, 1, 1), (1, 3, 1, 29)], ids=str)
def test_pooling_of_all_there_is(shape: tuple[int, ...]) -> None:
    network = networks.model(
        [node("GlobalAveragePool", "x", "y"), node("GlobalMaxPool", "x", "z")],
        {"x": list(shape)},
        {"y": [*shape[:2], 1, 1], "z": [*shape[:2], 1, 1]},
    )
    kernels.check(network, BEST)


def softmaxes(shape: Sequence[int], axis: int) -> onnx.ModelProto:
    return networks.model(
        [node("Softmax", "x", "y", axis=axis), node("LogSoftmax", "x", "z", axis=axis)],
        {"x": list(shape)},
        {"y": list(shape), "z": list(shape)},
    )


@pytest.mark.parametrize("profile", kernels.EXTREMES)
@pytest.mark.parametrize("length", [1, 2, 17, 1001, 6625])
def test_softmax_along_memory(length: int, profile: str) -> None:
    kernels.check(softmaxes((3, length), -1), profile, varies=length > 1)


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        *(((3, 2, 17, 5), axis) for axis in range(4)),
        ((3, 5), 0),
        ((64, 101), 0),
        ((64, 101), 1),
        ((2, 17, 1), 1),
    ],
    ids=str,
)
def test_softmax_along_any_axis(shape: tuple[int, ...], axis: int) -> None:
    kernels.check(softmaxes(shape, axis), BEST, rule="reduction")


@pytest.mark.parametrize("profile", kernels.EXTREMES)
def test_what_softmax_needs_within_a_row_is_kept_for_one_row_a_thread(profile: str) -> None:
    shape = (40, 7, 301)
    network = networks.model([node("Softmax", "x", "y", axis=-1)], {"x": shape}, {"y": shape})
    compiled, _ = kernels.check(network, profile)
    rows = 3 * 4 * 320  # in bytes: e^x, its sum and its largest, each from a cache line on
    assert compiled.plan.arena_bytes <= load_target(profile).cores * rows


def test_softmax_of_a_flattened_tail_and_after_a_convolution() -> None:
    network = networks.model(
        [node("Softmax", "x", "y", axis=1)], {"x": [3, 2, 7]}, {"y": [3, 2, 7]}, opset=11
    )
    kernels.check(network, BEST)
    network = networks.model(
        [node("Conv", "x w", "c"), node("Softmax", "c", "y", axis=1)],
        {"x": [2, 5, 7, 6]},
        {"y": [2, 3, 7, 6]},
        {"w": weights(3, 5, 1, 1)},
    )
    kernels.check(network, BEST)


def spelled_out(shape: Sequence[int], axes: Sequence[int]) -> onnx.ModelProto:
    """Layer normalisation as exporters write it where they have no operator for it."""
    nodes = [
        node("ReduceMean", "x", "mean", axes=list(axes)),
        node("Sub", "x mean", "centred"),
        node("Pow", "centred two", "squares"),
        node("ReduceMean", "squares", "variance", axes=list(axes)),
        node("Add", "variance epsilon", "positive"),
        node("Sqrt", "positive", "deviation"),
        node("Div", "centred deviation", "normal"),
        node("Mul", "normal scale", "scaled"),
        node("Add", "scaled bias", "y"),
    ]
    parameters: dict[str, np.ndarray | np.generic] = {
        "two": np.float32(2),
        "epsilon": np.float32(1e-5),
        "scale": weights(shape[-1]) + 1,
        "bias": weights(shape[-1]),
    }
    return networks.model(nodes, {"x": list(shape)}, {"y": list(shape)}, parameters)


@pytest.mark.parametrize(
    ("shape", "axes"),
    [((2, 7, 33), (-1,)), ((2, 7, 33), (1,)), ((2, 7, 5), (1, 2)), ((64, 7, 33), (-1,))],
    ids=str,
)
def test_layer_normalisation_spelled_out(shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    kernels.check(spelled_out(shape, axes), BEST, rule="reduction", tolerance=2e-5)


@pytest.mark.parametrize("profile", kernels.EXTREMES)
def test_layer_normalisation(profile: str) -> None:
    shapes = {"a": [2, 7, 33], "b": [1, 1, 5], "c": [3, 17], "d": [5, 2]}
    nodes, parameters = [], {}
    for name, shape in shapes.items():
        operands = f"{name} {name}_scale {name}_bias"
        nodes.append(node("LayerNormalization", operands, f"{name}_y", axis=-1))
        parameters[f"{name}_scale"] = weights(shape[-1]) + 1
        parameters[f"{name}_bias"] = weights(shape[-1])
    nodes.append(node("LayerNormalization", "a e_scale e_bias", "e_y", axis=-2))
    parameters |= {"e_scale": weights(7, 33) + 1, "e_bias": weights(7, 33)}
    outputs = {f"{name}_y": shape for name, shape in shapes.items()} | {"e_y": shapes["a"]}
    network = networks.model(nodes, dict(shapes), dict(outputs), parameters)
    kernels.check(network, profile, rule="reduction", tolerance=2e-5)


@pytest.mark.usefixtures("small_kernels_shared")
@pytest.mark.parametrize("cores", [2, 3, 4])
@pytest.mark.parametrize("operator", ["ReduceMean", "ReduceMax", "ReduceSumSquare", "ReduceProd"])
@pytest.mark.parametrize("shape", [(7, 9, 37), (2, 3, 130), (5, 1, 16)], ids=str)
def test_threads_share_the_terms_of_a_single_row(
    shape: tuple[int, ...], operator: str, cores: int
) -> None:
    network = networks.model(
        [node(operator, "x", "y", axes=[0, 1], keepdims=0)], {"x": shape}, {"y": [shape[-1]]}
    )
    kernels.check(network, BEST, rule="reduction")
    target = replace(load_target(BEST), cores=cores)
    compiled = kernels.compile_network(network, target)
    kernels.check_threads(compiled, 2, cores)
    is_sum_in_order = 1 in shape and operator != "ReduceMax"
    is_shared = shape[0] >= cores and not is_sum_in_order
    a_thread = 4 * -(-shape[-1] // 16) * 16
    assert compiled.plan.arena_bytes == (cores * a_thread if is_shared else 0)


@pytest.mark.parametrize("profile", kernels.EXTREMES)
@pytest.mark.parametrize("cores", [1, 2])
@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((2, 112, 112, 33), (1, 2)),
        ((112, 112, 33), (0, 1)),
        ((3, 1, 12544, 33), (1, 2)),
        ((20000, 33), (0,)),
        ((2, 24, 23, 24, 17), (1, 2, 3)),
    ],
    ids=str,
)
def test_a_mean_of_many_equal_terms_is_that_term(
    shape: tuple[int, ...], axes: tuple[int, ...], cores: int, profile: str
) -> None:
    kept = [extent for axis, extent in enumerate(shape) if axis not in axes]
    nodes = [node("ReduceMean", "x", "y", axes=list(axes), keepdims=0)]
    network = networks.model(nodes, {"x": list(shape)}, {"y": kept})
    target = replace(load_target(profile), cores=cores)
    compiled = kernels.compile_network(network, target)
    for value in map(np.float32, (0.1, 0.7, -1.3)):
        (answer,) = kernels.run(compiled, [np.full(shape, value)])
        assert np.abs(answer / value - 1).max() < 3e-6  # in order, 12544 of them: 1e-4


@pytest.mark.parametrize("made", ["operator", "spelled out"])
def test_layer_normalisation_reads_a_row_in_order_and_once_from_memory(made: str) -> None:
    rows, width = 64, 160
    spelled = spelled_out((rows, width), (-1,))
    operator = networks.model(
        [node("LayerNormalization", "x s b", "y", axis=-1)],
        {"x": [rows, width]},
        {"y": [rows, width]},
        {"s": weights(width), "b": weights(width)},
    )
    loops = kernels.loops_of(operator if made == "operator" else spelled, BEST)
    assert loops.count("T.parallel") <= 1  # one loop over rows has all stages
    assert f"lane * T.int64({width})" not in loops
    assert f"lane) * T.int64({width})" not in loops


@pytest.mark.parametrize("axis", [0, 1])
def test_softmax_divides_once_a_line(axis: int) -> None:
    shape = (48, 160)
    network = networks.model([node("Softmax", "x", "y", axis=axis)], {"x": shape}, {"y": shape})
    divisions = [
        line.split() for line in kernels.loops_of(network, BEST).splitlines() if " / " in line
    ]
    assert divisions
    assert all(line[0].startswith("softmax_scale[") for line in divisions)


def test_instance_and_group_normalisation() -> None:
    nodes = [
        node("Conv", "x w", "c"),
        node("InstanceNormalization", "c scale bias", "i"),
        node("Relu", "i", "r"),
        node("Reshape", "r grouped", "g"),
        node("InstanceNormalization", "g ones zeros", "n"),
        node("Reshape", "n whole", "m"),
        node("Mul", "m factor", "y"),
    ]
    parameters = {
        "w": weights(6, 3, 1, 1),
        "scale": weights(6) + 1,
        "bias": weights(6),
        "grouped": integers(2, 3, -1),
        "whole": integers(2, 6, 5, 7),
        "ones": np.ones(3, np.float32),
        "zeros": np.zeros(3, np.float32),
        "factor": weights(6, 1, 1) + 1,
    }
    network = networks.model(nodes, {"x": [2, 3, 5, 7]}, {"y": [2, 6, 5, 7]}, parameters)
    kernels.check(network, BEST, rule="reduction", tolerance=2e-5)


def test_normalisation_with_fixed_statistics_and_over_neighbouring_channels() -> None:
    nodes = [
        node("Relu", "x", "r"),
        node("BatchNormalization", "r scale bias mean variance", "b"),
        node("LRN", "b", "y", size=3),
    ]
    parameters = {
        "scale": weights(5) + 1,
        "bias": weights(5),
        "mean": weights(5),
        "variance": np.abs(weights(5)) + 1,
    }
    network = networks.model(nodes, {"x": [2, 5, 7, 3]}, {"y": [2, 5, 7, 3]}, parameters)
    kernels.check(network, BEST)


def test_the_index_of_the_largest_along_each_axis() -> None:
    nodes = [
        node("ArgMax", "x", "a", axis=0),
        node("ArgMax", "x", "b", axis=1, keepdims=0),
        node("ArgMin", "x", "c", axis=2),
    ]
    network = networks.model(
        nodes,
        {"x": [3, 17, 5]},
        {"a": [1, 17, 5], "b": [3, 5], "c": [3, 17, 1]},
        types=dict.fromkeys("abc", TensorProto.INT64),
    )
    kernels.check(network, BEST, rule="reduction")


def test_sums_and_maxima_of_integers() -> None:
    network = networks.model(
        [node("ReduceSum", "x axes", "a"), node("ReduceMax", "x", "b", axes=[0])],
        {"x": [7, 13]},
        {"a": [7, 1], "b": [1, 13]},
        {"axes": integers(1)},
        types=dict.fromkeys("xab", TensorProto.INT32),
    )
    kernels.check(network, BEST, rule="reduction")

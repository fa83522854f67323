from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from edgepack.compiler import layout, patterns
from edgepack.compiler.layout.tensors import channels_last, significant
from edgepack.compiler.layout.views import _groups, _regrouped
from tests import networks, relax_graphs
from tests.networks import node

Shapes = dict[str, Sequence[int | str]]


def random(*shape: int, seed: int = 0) -> np.ndarray:
    fan_in = max(int(np.prod(shape[1:])), 1)
    generator = np.random.default_rng(seed + sum(shape))
    return np.asarray(generator.standard_normal(shape) / np.sqrt(fan_in), np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def between_convolutions(
    nodes: Sequence[onnx.NodeProto],
    channels: int,
    output: Sequence[int],
    weights: dict[str, Any] | None = None,
    *,
    inputs: Shapes | None = None,
    closing: bool = True,
) -> onnx.ModelProto:
    """``nodes`` make "b" of "a" [1, 6, 7, 9], which a convolution makes; another makes "y" of "b"."""
    opening = node("Conv", "x open", "a", pads=[1, 1, 1, 1])
    ending = [node("Conv", "b close", "y")] if closing else [node("Identity", "b", "y")]
    all_weights = {"open": random(6, 3, 3, 3), **(weights or {})}
    if closing:
        all_weights["close"] = random(4, channels, 1, 1)
    return networks.model(
        [opening, *nodes, *ending],
        {"x": [1, 3, 7, 9], **(inputs or {})},
        {"y": output},
        all_weights,
    )


def activations() -> onnx.ModelProto:
    weights = {
        "three": np.float32(3),
        "six": np.array([6], np.float32),
        "slope": random(6, 1, 1),
        "zero": np.float32(0),
        "one": np.array([[[[1]]]], np.float32),
    }
    nodes = [
        node("Add", "a three", "shifted"),
        node("Clip", "shifted zero six", "clipped"),
        node("Mul", "a clipped", "product"),
        node("Div", "product six", "swish"),
        node("PRelu", "swish slope", "prelu"),
        node("LeakyRelu", "prelu", "leaky", alpha=0.2),
        node("Sigmoid", "leaky", "gate"),
        node("Mul", "leaky gate", "silu"),
        node("Sub", "one silu", "flipped"),
        node("Cast", "flipped", "b", to=onnx.TensorProto.FLOAT),
    ]
    return between_convolutions(nodes, 6, [1, 4, 7, 9], weights)


def squeeze_and_excite() -> onnx.ModelProto:
    weights = {
        "w1": random(2, 6, 1, 1),
        "b1": random(2),
        "w2": random(6, 2, 1, 1),
        "half": np.float32(0.5),
        "wide": np.array([1], np.float32),
        "zero": np.float32(0),
    }
    nodes = [
        node("ReduceMean", "a", "mean", axes=[2, 3], keepdims=1),
        node("Conv", "mean w1 b1", "c1"),
        node("Relu", "c1", "r1"),
        node("Conv", "r1 w2", "c2"),
        node("Add", "c2 half", "shifted"),
        node("Clip", "shifted zero wide", "gate"),
        node("Mul", "gate a", "b"),
    ]
    return between_convolutions(nodes, 6, [1, 4, 7, 9], weights)


def pools_and_sizes() -> onnx.ModelProto:
    nodes = [
        node("MaxPool", "a", "p1", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("AveragePool", "a", "p2", kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 1, 1]),
        node("Concat", "p1 p2 p1", "joined", axis=1),
        helper.make_node("Resize", ["joined", "", "scales"], ["big"], mode="nearest"),
        node("Pad", "big widths value", "b"),
    ]
    weights = {
        "scales": np.array([1, 1, 2, 2], np.float32),
        "widths": ints(0, 1, 2, 0, 0, 2, 0, 1),
        "value": np.float32(0.5),
    }
    return between_convolutions(nodes, 21, [1, 4, 10, 11], weights)


def classifier() -> onnx.ModelProto:
    nodes = [
        node("GlobalAveragePool", "a", "pooled"),
        node("Flatten", "pooled", "flat"),
        node("Gemm", "flat w", "logits", transB=1),
        node("Softmax", "logits", "b", axis=1),
    ]
    return between_convolutions(nodes, 0, [1, 5], {"w": random(5, 6)}, closing=False)


def reductions() -> onnx.ModelProto:
    nodes = [
        node("ReduceMax", "a", "over_channels", axes=[1], keepdims=1),
        node("ReduceMean", "a", "over_height", axes=[2], keepdims=1),
        node("ReduceSum", "a last", "over_width", keepdims=1),
        node("ArgMax", "a", "place", axis=1, keepdims=1),
        node("Cast", "place", "float_place", to=onnx.TensorProto.FLOAT),
        node("Add", "over_channels over_height", "s1"),
        node("Add", "s1 over_width", "s2"),
        node("Add", "s2 float_place", "s3"),
        node("Softmax", "s3", "b", axis=1),
    ]
    return between_convolutions(nodes, 6, [1, 4, 7, 9], {"last": ints(-1)})


def reductions_without_axes() -> onnx.ModelProto:
    nodes = [
        node("ReduceMean", "a", "rows", axes=[2], keepdims=0),
        node("ReduceMax", "rows", "channels", axes=[2], keepdims=0),
        node("ReduceMin", "rows", "columns", axes=[1], keepdims=0),
        node("Concat", "channels columns", "b", axis=1),
    ]
    return between_convolutions(nodes, 0, [1, 15], closing=False)


def slices_and_splits() -> onnx.ModelProto:
    weights = {
        "c0": ints(1),
        "c1": ints(5),
        "axis1": ints(1),
        "two": ints(2),
        "h0": ints(6),
        "h1": ints(-100),
        "axis2": ints(2),
        "back": ints(-2),
        "parts": ints(2, 4),
        "halves": ints(3, 6),
    }
    nodes = [
        node("Slice", "a c0 c1 axis1 two", "channels"),
        node("Slice", "channels h0 h1 axis2 back", "rows"),
        node("Split", "a parts", "left right", axis=1),
        node("Slice", "right h0 h1 axis2 back", "right_rows"),
        node("Concat", "rows right_rows", "joined", axis=1),
        node("Split", "joined halves", "narrow wide", axis=3),
        node("Concat", "wide narrow", "b", axis=3),
    ]
    return between_convolutions(nodes, 6, [1, 4, 4, 9], weights)


def broadcasts() -> onnx.ModelProto:
    weights = {
        "rank0": np.float32(0.3),
        "rank1": random(9),
        "rank2": random(7, 1),
        "rank3": random(6, 1, 9),
        "rank4": random(1, 6, 1, 1),
        "single": np.array([[0.7]], np.float32),
        "full": random(1, 6, 7, 9),
    }
    nodes = [
        node(operator, f"{left} {right}", name)
        for operator, left, right, name in (
            ("Add", "a", "rank0", "t0"),
            ("Mul", "rank1", "t0", "t1"),
            ("Sub", "t1", "rank2", "t2"),
            ("Add", "rank3", "t2", "t3"),
            ("Mul", "t3", "rank4", "t4"),
            ("Max", "t4", "single", "t5"),
            ("Add", "full", "t5", "t6"),
            ("Add", "t6", "row", "t7"),
            ("Greater", "t7", "channel", "positive"),
        )
    ]
    nodes.append(node("Where", "positive t7 rank3", "b"))
    inputs: Shapes = {"row": [9], "channel": [6, 1, 1]}
    return between_convolutions(nodes, 6, [1, 4, 7, 9], weights, inputs=inputs)


def from_tensorflow() -> onnx.ModelProto:
    nodes = [
        node("Transpose", "a", "a_last", perm=[0, 2, 3, 1]),
        node("Add", "a_last bias", "biased"),
        node("Relu", "biased", "relu"),
        node("Transpose", "relu", "first", perm=[0, 3, 1, 2]),
        node("Conv", "first w", "c", pads=[1, 1, 1, 1], group=6),
        node("Transpose", "c", "c_last", perm=[0, 2, 3, 1]),
        node("Add", "c_last relu", "sum"),
        node("Transpose", "sum", "b", perm=[0, 3, 1, 2]),
    ]
    weights = {"bias": random(6), "w": random(6, 1, 3, 3)}
    return between_convolutions(nodes, 6, [1, 4, 7, 9], weights)


def signal() -> onnx.ModelProto:
    nodes = [
        node("Conv", "x w1 b1", "c1", strides=[2], pads=[2, 1], dilations=[2]),
        node("Relu", "c1", "r1"),
        node("MaxPool", "r1", "p1", kernel_shape=[2], strides=[2]),
        node("Conv", "p1 w2", "c2", pads=[1, 1], group=8),
        node("AveragePool", "c2", "p2", kernel_shape=[3], pads=[1, 1]),
        node("ConvTranspose", "p2 w3", "c3", strides=[2]),
        node("ReduceMean", "c3", "y", axes=[2], keepdims=0),
    ]
    weights = {
        "w1": random(8, 2, 3),
        "b1": random(8),
        "w2": random(8, 1, 3),
        "w3": random(8, 5, 2),
    }
    return networks.model(nodes, {"x": [2, 2, 40]}, {"y": [2, 5]}, weights)


def upsampled() -> onnx.ModelProto:
    weights = {"w": random(6, 2, 3, 3), "grouped": random(4, 3, 2, 2)}
    nodes = [
        node(
            "ConvTranspose",
            "a w",
            "up",
            strides=[2, 1],
            pads=[1, 0, 0, 1],
            output_padding=[1, 0],
            group=2,
        ),
        node("ConvTranspose", "up grouped", "b", strides=[2, 2], group=4),
    ]
    return between_convolutions(nodes, 12, [1, 4, 30, 20], weights)


def tokens() -> onnx.ModelProto:
    """An image made a sequence, normalised, and made an image again, as in hybrid networks."""
    nodes = [
        node("Reshape", "a to_tokens", "flat"),
        node("Transpose", "flat", "sequence", perm=[0, 2, 1]),
        node("LayerNormalization", "sequence scale offset", "normal"),
        node("MatMul", "normal w", "mixed"),
        node("Add", "sequence mixed", "sum"),
        node("Transpose", "sum", "channels", perm=[0, 2, 1]),
        node("Reshape", "channels to_image", "b"),
    ]
    weights = {
        "to_tokens": ints(1, 6, 63),
        "to_image": ints(1, 6, 7, 9),
        "w": random(6, 6),
        "scale": random(6),
        "offset": random(6),
    }
    return between_convolutions(nodes, 6, [1, 4, 7, 9], weights)


def normalised() -> onnx.ModelProto:
    nodes = [
        node("InstanceNormalization", "a scale offset", "i"),
        node("BatchNormalization", "i scale offset mean variance", "n"),
        node("LogSoftmax", "n", "b", axis=3),
    ]
    weights = {
        "scale": random(6) + 1,
        "offset": random(6),
        "mean": random(6),
        "variance": np.abs(random(6)) + 0.5,
    }
    return between_convolutions(nodes, 6, [1, 4, 7, 9], weights)


def two_orders() -> onnx.ModelProto:
    """Operators that know one order only, and an output in the middle."""
    nodes = [
        node("Conv", "x w", "c", pads=[1, 1, 1, 1]),
        node("DepthToSpace", "c", "deep", blocksize=2),
        node("Relu", "c", "middle"),
        node("MatMul", "deep square", "y"),
    ]
    return networks.model(
        nodes,
        {"x": [1, 3, 4, 6]},
        {"y": [1, 2, 8, 5], "middle": [1, 8, 4, 6]},
        {"w": random(8, 3, 3, 3), "square": random(12, 5)},
    )


EDGES: dict[Callable[[], onnx.ModelProto], int] = {
    # One transpose where the input comes in, one where an image goes out; nothing in between.
    networks.convolutional: 1,
    networks.transposed_convolution: 1,
    activations: 2,
    squeeze_and_excite: 2,
    pools_and_sizes: 2,
    classifier: 1,
    reductions: 2,
    reductions_without_axes: 1,
    slices_and_splits: 2,
    broadcasts: 2,
    from_tensorflow: 2,
    signal: 1,
    upsampled: 2,
    tokens: 2,
    normalised: 2,
    # The input, depth to space, and the output in the middle.
    two_orders: 3,
}


@pytest.mark.parametrize("network", EDGES, ids=lambda network: network.__name__)
def test_only_the_edges_of_a_network_are_transposed_and_its_results_stay(
    network: Callable[[], onnx.ModelProto],
) -> None:
    made = network()
    module = layout.to_channels_last(patterns.recognise(relax_graphs.relax_of(made)))
    assert relax_graphs.operators(module)["permute_dims"] == EDGES[network]
    relax_graphs.assert_same_results(module, made)


@pytest.mark.parametrize("network", [activations, pools_and_sizes, networks.two_in_three_out])
def test_what_has_no_rule_keeps_its_order_and_its_results(
    network: Callable[[], onnx.ModelProto],
) -> None:
    made = network()
    if network is networks.two_in_three_out:
        made.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 4
    module = layout.to_channels_last(relax_graphs.relax_of(made))
    relax_graphs.assert_same_results(module, made)


def test_convolutions_are_channels_last_and_nothing_else_has_one_dimension() -> None:
    module = layout.to_channels_last(relax_graphs.relax_of(signal()))
    counted = relax_graphs.operators(module)
    assert counted["nn.conv2d"] == 2
    assert counted["nn.conv2d_transpose"] == 1
    assert not [name for name in counted if "1d" in name]
    text = module["main"].script()
    assert text.count('data_layout="NHWC"') == 3
    assert text.count('kernel_layout="HWIO"') == 3


def test_an_epilogue_stays_in_the_shape_of_its_convolution() -> None:
    module = layout.to_channels_last(relax_graphs.relax_of(signal()))
    names = [
        binding.value.op.name for block in module["main"].body.blocks for binding in block.bindings
    ]
    first = names.index("relax.nn.conv2d")
    assert names[first : first + 4] == [
        "relax.nn.conv2d",
        "relax.add",
        "relax.nn.relu",
        "relax.nn.max_pool2d",
    ]


def test_a_constant_that_is_used_twice_is_stored_once() -> None:
    nodes = [
        node("Conv", "x w", "a", pads=[1, 1, 1, 1]),
        node("Conv", "a w", "y", pads=[1, 1, 1, 1]),
    ]
    network = networks.model(
        nodes, {"x": [1, 4, 5, 5]}, {"y": [1, 4, 5, 5]}, {"w": random(4, 4, 3, 3)}
    )
    module = layout.to_channels_last(relax_graphs.relax_of(network))
    kernels = [
        binding.value.args[1]
        for block in module["main"].body.blocks
        for binding in block.bindings
        if binding.value.op.name == "relax.nn.conv2d"
    ]
    assert kernels[0].same_as(kernels[1])


def test_scalars_lose_their_axes_so_that_kernels_hold_them_as_numbers() -> None:
    module = layout.to_channels_last(relax_graphs.relax_of(activations()))
    divisors = [
        binding.value.args[1]
        for block in module["main"].body.blocks
        for binding in block.bindings
        if binding.value.op.name == "relax.divide"
    ]
    assert [len(divisor.ty.shape) for divisor in divisors] == [0]


def test_a_main_with_branches_is_left_alone() -> None:
    from tvm import relax

    builder = relax.BlockBuilder()
    condition = relax.Var("condition", relax.TensorType((), "bool"))
    data = relax.Var("data", relax.TensorType((1, 2, 3, 4), "float32"))
    with builder.function("main", [condition, data]):
        branch = relax.SeqExpr([], data)
        chosen = builder.emit(relax.If(condition, branch, relax.SeqExpr([], data)))
        builder.emit_func_output(chosen)
    module = builder.finalize()
    assert layout.to_channels_last(module).same_as(module)
    assert patterns.recognise(module).same_as(module)


def test_axes_of_extent_one_take_no_part_in_an_order() -> None:
    assert channels_last(4) == (0, 2, 3, 1)
    assert channels_last(2) == (0, 1)
    assert significant((0, 2, 3, 1), (1, 5, 1, 7)) == (3, 1)


@pytest.mark.parametrize(
    ("before", "after", "order", "regrouped"),
    [
        ((2, 3, 4, 5), (2, 3, 20), (0, 2, 3, 1), (0, 2, 1)),
        ((2, 3, 20), (2, 3, 4, 5), (0, 2, 1), (0, 2, 3, 1)),
        ((2, 6, 4), (2, 2, 3, 1, 4), (0, 2, 1), (0, 4, 1, 2)),
        ((2, 3, 4, 5), (2, 60), (0, 2, 3, 1), None),
        ((2, 3, 4), (6, 4), (0, 2, 1), None),
        ((4, 6), (8, 3), (0, 1), (0, 1)),
        ((4, 6), (8, 3), (1, 0), None),
        ((1, 1), (1,), (), ()),
    ],
)
def test_a_reshape_keeps_an_order_unless_it_tears_axes_apart(
    before: tuple[int, ...],
    after: tuple[int, ...],
    order: tuple[int, ...],
    regrouped: tuple[int, ...] | None,
) -> None:
    assert _regrouped(order, before, _groups(before, after)) == regrouped

"""Small ONNX networks for the tests, each with weights that make its outputs depend on its inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Network = Callable[[], onnx.ModelProto]


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Sequence[int | str]],
    outputs: Mapping[str, Sequence[int | str]],
    weights: Mapping[str, np.ndarray | np.generic] | None = None,
    *,
    opset: int = 17,
    types: Mapping[str, int] | None = None,
) -> onnx.ModelProto:
    """A checked model; every tensor is float32 unless ``types`` says otherwise."""
    kinds = types or {}

    def values(shapes: Mapping[str, Sequence[int | str]]) -> list[onnx.ValueInfoProto]:
        return [
            helper.make_tensor_value_info(name, kinds.get(name, TensorProto.FLOAT), shape)
            for name, shape in shapes.items()
        ]

    graph = helper.make_graph(
        list(nodes),
        "network",
        values(inputs),
        values(outputs),
        [
            numpy_helper.from_array(np.asarray(array), name)
            for name, array in (weights or {}).items()
        ],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    made.ir_version = 8
    onnx.checker.check_model(made)
    return onnx.shape_inference.infer_shapes(made, data_prop=True)


def save(network: onnx.ModelProto, path: Path) -> Path:
    """Write ``network`` to ``path`` and return it."""
    onnx.save(network, path)
    return path


def _random(*shape: int, seed: int = 0) -> np.ndarray:
    """Weights of about unit gain for their fan-in."""
    generator = np.random.default_rng(seed)
    fan_in = max(int(np.prod(shape[1:])), 1)
    return np.asarray(generator.standard_normal(shape) / np.sqrt(fan_in), np.float32)


def node(operator: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    """``node("Conv", "x w", "y")``; names are separated by blanks."""
    return helper.make_node(operator, inputs.split(), outputs.split(), **attributes)


def convolutional() -> onnx.ModelProto:
    """Convolutions (3x3, depthwise, strided 1x1), ReLU6, a residual, pooling, Gemm, softmax."""
    weights: dict[str, np.ndarray | np.generic] = {
        "w1": _random(8, 3, 3, 3, seed=1),
        "b1": _random(8, seed=2),
        "w2": _random(8, 1, 3, 3, seed=3),
        "w3": _random(8, 8, 1, 1, seed=4),
        "w4": _random(5, 8, seed=5) * 4,
        "b4": _random(5, seed=6),
        "zero": np.float32(0),
        "six": np.float32(6),
    }
    nodes = [
        node("Conv", "x w1 b1", "c1", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("Clip", "c1 zero six", "r1"),
        node("Conv", "r1 w2", "c2", pads=[1, 1, 1, 1], group=8),
        node("Relu", "c2", "r2"),
        node("Conv", "r2 w3", "c3"),
        node("Add", "c3 r1", "sum"),
        node("MaxPool", "sum", "p1", kernel_shape=[2, 2], strides=[2, 2]),
        node("GlobalAveragePool", "p1", "p2"),
        node("Flatten", "p2", "flat"),
        node("Gemm", "flat w4 b4", "logits", transB=1),
        node("Softmax", "logits", "y", axis=1),
    ]
    return model(nodes, {"x": [1, 3, 17, 23]}, {"y": [1, 5]}, weights)


def transposed_convolution() -> onnx.ModelProto:
    """An encoder and a decoder, with a skip by Concat and a nearest-neighbour Resize."""
    weights: dict[str, np.ndarray | np.generic] = {
        "w1": _random(6, 2, 3, 3, seed=1),
        "w2": _random(6, 4, 2, 2, seed=2),
        "w3": _random(1, 6, 3, 3, seed=3),
        "scales": np.array([1, 1, 2, 2], np.float32),
    }
    nodes = [
        node("Conv", "x w1", "c1", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("LeakyRelu", "c1", "r1", alpha=0.1),
        node("ConvTranspose", "r1 w2", "up", strides=[2, 2]),
        node("Concat", "up x", "joined", axis=1),
        node("Conv", "joined w3", "c3", pads=[1, 1, 1, 1]),
        helper.make_node("Resize", ["c3", "", "scales"], ["big"], mode="nearest"),
        node("Sigmoid", "big", "y"),
    ]
    return model(nodes, {"x": [1, 2, 8, 10]}, {"y": [1, 1, 16, 20]}, weights)


def scalars() -> onnx.ModelProto:
    """Nothing but tensors without a dimension: exp(x) · y + x."""
    nodes = [node("Exp", "x", "e"), node("Mul", "e y", "p"), node("Add", "p x", "z")]
    return model(nodes, {"x": [], "y": []}, {"z": []})


def two_in_three_out() -> onnx.ModelProto:
    """Several inputs and outputs of several types: a matrix product, an index, an input passed on."""
    nodes = [
        node("MatMul", "a b", "product"),
        node("Tanh", "product", "y"),
        node("ArgMax", "product", "index", axis=1, keepdims=0),
        node("Identity", "a", "same"),
        node("Greater", "product zero", "positive"),
    ]
    return model(
        nodes,
        {"a": [4, 6], "b": [6, 5]},
        {"y": [4, 5], "index": [4], "same": [4, 6], "positive": [4, 5]},
        {"zero": np.float32(0)},
        types={"index": TensorProto.INT64, "positive": TensorProto.BOOL},
    )


def integer_codes() -> onnx.ModelProto:
    """An embedding of int64 codes, summed, with an output that is a view of another."""
    nodes = [
        node("Gather", "table codes", "rows", axis=0),
        node("ReduceMean", "rows", "mean", axes=[1], keepdims=0),
        node("Erf", "mean", "y"),
        node("Reshape", "y shape", "flat"),
    ]
    return model(
        nodes,
        {"codes": [2, 7]},
        {"y": [2, 16], "flat": [32]},
        {"table": _random(300, 16) * 6, "shape": np.array([32], np.int64)},
        types={"codes": TensorProto.INT64},
    )


def dynamic() -> onnx.ModelProto:
    """A model whose input has symbolic dimensions ``batch`` and ``length``."""
    nodes = [node("MatMul", "x w", "m"), node("Relu", "m", "y")]
    return model(
        nodes,
        {"x": ["batch", "length", 4]},
        {"y": ["batch", "length", 3]},
        {"w": _random(4, 3)},
    )


def lookups() -> onnx.ModelProto:
    """Indices from the input: every way that ONNX has to read or write at a computed place."""
    nodes = [
        node("Gather", "table rows", "gathered", axis=0),
        node("GatherElements", "table columns", "elements", axis=1),
        node("GatherND", "table places", "points"),
        node("ScatterElements", "table columns two", "marked", axis=1),
        node("ScatterND", "table places four", "dotted"),
    ]
    return model(
        nodes,
        {"rows": [3], "columns": [300, 2], "places": [4, 2]},
        {
            "gathered": [3, 16],
            "elements": [300, 2],
            "points": [4],
            "marked": [300, 16],
            "dotted": [300, 16],
        },
        {
            "table": _random(300, 16),
            "two": np.tile(np.array([7, 8], np.float32), (300, 1)),
            "four": np.array([1, 2, 3, 4], np.float32),
        },
        types=dict.fromkeys(("rows", "columns", "places"), TensorProto.INT64),
    )


def reductions() -> onnx.ModelProto:
    """Sums along memory whose lengths divide well, badly, and not at all; a softmax of many."""
    lengths = {"even": 512, "twice_prime": 214, "four_times_prime": 508, "prime": 251, "odd": 6625}
    nodes: list[onnx.NodeProto] = []
    outputs: dict[str, Sequence[int | str]] = {}
    for name, length in lengths.items():
        nodes += [
            node("Slice", f"x zero {name}_end one", f"{name}_x"),
            node("ReduceMean", f"{name}_x", f"{name}_mean", axes=[1], keepdims=0),
            node("ReduceMax", f"{name}_x", f"{name}_max", axes=[1], keepdims=0),
            node("Softmax", f"{name}_x", f"{name}_softmax", axis=1),
        ]
        outputs |= {f"{name}_mean": [3], f"{name}_max": [3], f"{name}_softmax": [3, length]}
    ends = {f"{name}_end": np.array([length], np.int64) for name, length in lengths.items()}
    axes = {"zero": np.array([0], np.int64), "one": np.array([1], np.int64)}
    return model(nodes, {"x": [3, 6625]}, outputs, ends | axes)


NETWORKS: dict[str, Network] = {
    "convolutional": convolutional,
    "transposed_convolution": transposed_convolution,
    "reductions": reductions,
    "scalars": scalars,
    "two_in_three_out": two_in_three_out,
    "integer_codes": integer_codes,
}


def quantised(layers: int, output: str = "y") -> onnx.ModelProto:
    """Convolutions one behind the other, each between integers; ``output`` is y, or its integers q."""
    generator = np.random.default_rng(4)
    scale, zero_point = np.float32(0.05), np.uint8(128)
    nodes: list[onnx.NodeProto] = []
    values: dict[str, Any] = {"s": scale, "z": zero_point}
    values |= {"ws": np.float32(0.006), "wz": np.int8(0)}
    last = "x"
    for i in range(layers):
        values[f"w{i}"] = np.asarray(generator.integers(-127, 128, (16, 16, 3, 3)) // 5, np.int8)
        nodes += [
            node("QuantizeLinear", f"{last} s z", f"q{i}"),
            node("DequantizeLinear", f"q{i} s z", f"d{i}"),
            node("DequantizeLinear", f"w{i} ws wz", f"k{i}"),
            node("Conv", f"d{i} k{i}", f"c{i}", pads=[1, 1, 1, 1]),
        ]
        last = f"c{i}"
    nodes.append(node("QuantizeLinear", f"{last} s z", "q"))
    if output == "y":
        nodes.append(node("DequantizeLinear", "q s z", "y"))
    shape, types = [1, 16, 12, 12], {"q": TensorProto.UINT8}
    return model(nodes, {"x": shape}, {output: shape}, values, types=types)

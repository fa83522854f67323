"""What ``inspect`` tells of an ONNX model: its tensors, operators, parameters and FLOPs.

FLOPs count convolutions and matrix products alone, a multiplication and an addition as two: the
operators in _FLOPS, for one inference. They are None where a shape they need is not known.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto

    Shape = tuple[int | str, ...]
    Shapes = dict[str, Shape]


def summarise(model: ModelProto) -> dict[str, Any]:
    """The model's inputs, outputs, operator histogram, parameters and FLOPs, ready for JSON.

    A dimension that is not fixed stands as its symbol, ``"?"`` where it has none. ``parameters``
    counts the elements of initializers and constants other than int64, which are shapes and indices.
    """
    import onnx

    try:
        typed = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError):
        typed = model  # over 2 GiB, or a graph that contradicts itself: what it says of itself
    constants = {name: (dtype, shape) for name, dtype, shape in _constants(typed.graph)}
    given = set(constants)
    operators = Counter(node.op_type for node in _nodes(typed.graph) if node.op_type != "Constant")
    return {
        "ir_version": model.ir_version,
        "opset": next((item.version for item in model.opset_import if item.domain == ""), None),
        "producer": f"{model.producer_name} {model.producer_version}".strip(),
        "inputs": [_tensor(value) for value in model.graph.input if value.name not in given],
        "outputs": [_tensor(value) for value in _outputs(model, typed)],
        "ops": dict(operators.most_common()),
        "parameters": sum(
            math.prod(shape)
            for dtype, shape in constants.values()
            if dtype != onnx.TensorProto.INT64
        ),
        "flops": _flops(typed.graph, {name: shape for name, (_, shape) in constants.items()}),
    }


def _outputs(model: ModelProto, typed: ModelProto) -> Iterator[ValueInfoProto]:
    """As the model states them; as inferred where it states no shape."""
    for stated, inferred in zip(model.graph.output, typed.graph.output, strict=True):
        yield inferred if _shape(stated) is None else stated


def _nodes(graph: GraphProto) -> Iterator[NodeProto]:
    """Every node, those of subgraphs (If, Loop) as well."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for subgraph in (*attribute.graphs, attribute.g):
                yield from _nodes(subgraph)


def _constants(graph: GraphProto) -> Iterator[tuple[str, int, tuple[int, ...]]]:
    for tensor in graph.initializer:
        yield tensor.name, tensor.data_type, tuple(tensor.dims)
    for node in graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    yield node.output[0], attribute.t.data_type, tuple(attribute.t.dims)


def _shape(value: ValueInfoProto) -> Shape | None:
    """None where not even the rank is known."""
    if not value.type.tensor_type.HasField("shape"):
        return None
    return tuple(
        dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else dim.dim_param or "?"
        for dim in value.type.tensor_type.shape.dim
    )


def _tensor(value: ValueInfoProto) -> dict[str, Any]:
    import onnx

    kind = value.type.WhichOneof("value") or "unknown"
    element = value.type.tensor_type.elem_type
    known = kind == "tensor_type" and element in onnx.helper.get_all_tensor_dtypes()
    dtype = onnx.helper.tensor_dtype_to_np_dtype(element).name if known else kind
    shape = _shape(value)
    return {"name": value.name, "dtype": dtype, "shape": None if shape is None else list(shape)}


def _flops(graph: GraphProto, constants: dict[str, tuple[int, ...]]) -> int | None:
    shapes: Shapes = {**constants}
    for value in (*graph.input, *graph.value_info, *graph.output):
        shape = _shape(value)
        if shape is not None:
            shapes.setdefault(value.name, shape)
    total = 0
    for node in _nodes(graph):
        if node.op_type in _FLOPS:
            try:
                total += 2 * _FLOPS[node.op_type](node, shapes)
            except (KeyError, IndexError, TypeError, ValueError):
                return None
    return total


def _size(shape: Shape) -> int:
    """Number of elements; a ValueError where a dimension is a symbol."""
    return math.prod(int(dim) for dim in shape)


def _conv(weight: int) -> Callable[[NodeProto, Shapes], int]:
    def multiplications(node: NodeProto, shapes: Shapes) -> int:
        return _size(shapes[node.output[0]]) * _size(shapes[node.input[weight]][1:])

    return multiplications


def _conv_transpose(node: NodeProto, shapes: Shapes) -> int:
    return _size(shapes[node.input[0]]) * _size(shapes[node.input[1]][1:])


def _matmul(node: NodeProto, shapes: Shapes) -> int:
    return _size(shapes[node.output[0]]) * int(shapes[node.input[0]][-1])


def _gemm(node: NodeProto, shapes: Shapes) -> int:
    transposed = any(item.name == "transA" and item.i for item in node.attribute)
    return _size(shapes[node.output[0]]) * int(shapes[node.input[0]][0 if transposed else 1])


_FLOPS: dict[str, Callable[[NodeProto, Shapes], int]] = {
    "Conv": _conv(1),
    "ConvInteger": _conv(1),
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "MatMulInteger": _matmul,
    "QLinearConv": _conv(3),
    "QLinearMatMul": _matmul,
}
"""Multiplications of one node, by operator."""

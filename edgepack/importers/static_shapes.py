"""Holds that every tensor of a simplified model has a fixed shape, and reads inputs and outputs off."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import TYPE_CHECKING

from edgepack.artefacts import DTYPE_BYTES, TensorSpec
from edgepack.errors import ModelError
from edgepack.importers.graphs import node_label
from edgepack.importers.input_shapes import dims_of, dtype_name
from edgepack.importers.passes.branches import SELECT_PREFIX

if TYPE_CHECKING:
    import onnx


def check_static(model: onnx.ModelProto) -> None:
    """Raise ModelError naming the first node whose output has no fixed shape, and why."""
    types = value_types(model)
    for node in model.graph.node:
        check_node(node, types)


def check_node(node: onnx.NodeProto, types: Mapping[str, onnx.ValueInfoProto]) -> None:
    """Raise ModelError if one of the node's outputs has no fixed shape."""
    import onnx

    for name in node.output:
        if not name or is_static(types.get(name)):
            continue
        if node.domain not in ("", "ai.onnx") and not onnx.defs.has(node.op_type, node.domain):
            raise ModelError(
                f"unsupported operator: {node_label(node)} is not an ONNX operator",
                "Export the model without custom operators",
            )
        raise not_static(node, types.get(name))


def check_selections(model: onnx.ModelProto) -> None:
    """Raise ModelError where a selection that stands for an If or a Loop has sides of two shapes."""
    types = value_types(model)
    for node in model.graph.node:
        if node.op_type == "Where" and node.name.startswith(SELECT_PREFIX):
            _check_branches(node, types)


def input_specs(model: onnx.ModelProto, *, without: Container[str]) -> tuple[TensorSpec, ...]:
    """The graph's inputs but those named in ``without``; their types have been checked."""
    return tuple(_spec(value) for value in model.graph.input if value.name not in without)


def output_specs(model: onnx.ModelProto) -> tuple[TensorSpec, ...]:
    """The graph's outputs. Raises ModelError for a type that cannot be given out."""
    for value in model.graph.output:
        if not is_static(value):
            raise ModelError(f"output {value.name!r} has no fixed shape")
        dtype = dtype_name(value.type.tensor_type.elem_type)
        if dtype not in DTYPE_BYTES:
            raise ModelError(
                f"output {value.name!r} is of type {dtype}",
                f"Types that an output may have: {', '.join(DTYPE_BYTES)}",
            )
    return tuple(map(_spec, model.graph.output))


def value_types(model: onnx.ModelProto) -> dict[str, onnx.ValueInfoProto]:
    """The inferred type of every value of the main graph by name."""
    graph = model.graph
    return {value.name: value for value in (*graph.input, *graph.value_info, *graph.output)}


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    return TensorSpec(
        name=value.name,
        dtype=dtype_name(value.type.tensor_type.elem_type),
        shape=tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim),
    )


def is_static(value: onnx.ValueInfoProto | None) -> bool:
    """Whether a value is a tensor of fixed shape."""
    if value is None or value.type.WhichOneof("value") != "tensor_type":
        return False
    dims = dims_of(value)
    return dims is not None and all(isinstance(dim, int) for dim in dims)


def not_static(node: onnx.NodeProto, value: onnx.ValueInfoProto | None) -> ModelError:
    """The error for a node that gives ``value``, which is no tensor of fixed shape; to be raised."""
    kind = value.type.WhichOneof("value") if value is not None else None
    if kind not in (None, "tensor_type"):
        word = str(kind).removesuffix("_type").replace("_", " ")
        return ModelError(
            f"{node_label(node)} gives a {word}; edgepack compiles tensors only",
            "Export the model without it",
        )
    return ModelError(
        f"the output shape of {node_label(node)} depends on data",
        "Every shape must be known when the model is compiled: cut the model before this node,"
        " or export it with a fixed bound",
    )


def _check_branches(node: onnx.NodeProto, types: dict[str, onnx.ValueInfoProto]) -> None:
    first, second = (dims_of(types[name]) if name in types else None for name in node.input[1:])
    if first is not None and second is not None and first != second:
        operator, _, label = node.name.removeprefix(SELECT_PREFIX).partition("/")
        if operator == "Loop":
            label = label.rsplit("/", 2)[0]  # without the iteration and the value's number
            raise ModelError(
                f"Loop {label!r} ends when its data say so, and changes the shape of a value that it"
                f" carries: {second} becomes {first}",
                "Export the model with a fixed number of iterations",
            )
        raise ModelError(
            f"the output shape of If {label!r} depends on data: its branches give {first} and {second}",
            "Export the branch that the device needs as a model of its own",
        )

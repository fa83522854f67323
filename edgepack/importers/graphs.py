"""Walks over ONNX graphs, subgraphs of ``If``, ``Loop`` and ``Scan`` included."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs that a node's attributes hold, not those nested in them."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def all_graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph and every graph nested in it, outermost first."""
    pending = [graph]
    while pending:
        current = pending.pop()
        yield current
        for node in current.node:
            pending.extend(subgraphs(node))


def all_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every constant tensor: initializers and attributes, of functions too."""
    for graph in all_graphs(model.graph):
        yield from graph.initializer
        yield from _attribute_tensors(graph.node)
    for function in model.functions:
        yield from _attribute_tensors(function.node)
        for node in function.node:
            for nested in subgraphs(node):
                for graph in all_graphs(nested):
                    yield from graph.initializer
                    yield from _attribute_tensors(graph.node)


def used_names(graph: onnx.GraphProto) -> set[str]:
    """Names that nodes read anywhere in the graph, and those it gives."""
    used = {value.name for value in graph.output}
    for nested in all_graphs(graph):
        for node in nested.node:
            used.update(node.input)
        used.update(value.name for value in nested.output)
    return used


def node_label(node: onnx.NodeProto) -> str:
    """``Conv 'block1/conv'``: the operator, and the name or, without one, the first output."""
    operator = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
    return f"{operator} {(node.name or (node.output[0] if node.output else ''))!r}"


def _attribute_tensors(nodes: Iterator[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors

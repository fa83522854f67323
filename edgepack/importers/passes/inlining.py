"""Puts the nodes of a subgraph into the main graph, under fresh names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from edgepack.importers.graphs import subgraphs
from edgepack.importers.passes.constants import constant_tensor

if TYPE_CHECKING:
    import onnx

    from edgepack.importers.passes.editor import GraphEditor

_AXES_ARE_AN_INPUT = 13
"""Opset from which Squeeze and Unsqueeze take axes as an input."""


def inline(
    editor: GraphEditor, graph: onnx.GraphProto, values: Mapping[str, str], prefix: str = ""
) -> list[str]:
    """Emit a subgraph's nodes; returns the names that its outputs have in the main graph.

    ``values`` gives main graph values for names in the subgraph: its inputs, and what
    ``share_constants`` gave. Values from outside keep their names. Graphs nested in it see the renamed
    values, too. ``prefix`` begins the fresh names.
    """
    import onnx

    renamed = dict(values)
    for tensor in graph.initializer:
        if tensor.name not in renamed:
            renamed[tensor.name] = _adopt_tensor(editor, tensor)
    for node in graph.node:
        if node.output and all(name in values for name in node.output):
            continue  # a shared constant
        for output in node.output:
            if output:
                renamed[output] = editor.fresh(f"{prefix}{output}")
        copied = onnx.NodeProto()
        copied.CopyFrom(node)
        copied.name = editor.fresh(f"{prefix}{node.name or node.op_type.lower()}")
        copied.output[:] = [renamed.get(name, name) for name in node.output]
        rename_uses(copied, renamed)
        editor.adopt(copied)
    return [renamed.get(value.name, value.name) for value in graph.output]


def share_constants(editor: GraphEditor, graph: onnx.GraphProto) -> dict[str, str]:
    """Add a subgraph's constants to the main graph once, for all copies that are to be made of it.

    Returns their new names by the old ones, to be given to ``inline``.
    """
    shared = {tensor.name: _adopt_tensor(editor, tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and not node.domain:
            tensor = constant_tensor(node)
            if tensor is not None:
                tensor.name = node.output[0]
                shared[tensor.name] = _adopt_tensor(editor, tensor)
    return shared


def stack(editor: GraphEditor, values: Sequence[str], axis: int, output: str) -> None:
    """Emit the stack of equally shaped values along a new axis."""
    rows = [unsqueeze(editor, value, axis) for value in values]
    editor.concat(rows, axis, output)


def unsqueeze(editor: GraphEditor, value: str, axis: int) -> str:
    """Emit an Unsqueeze of one axis in the form that the opset has."""
    return _with_axes(editor, "Unsqueeze", value, axis)


def squeeze(editor: GraphEditor, value: str, axis: int) -> str:
    """Emit a Squeeze of one axis in the form that the opset has."""
    return _with_axes(editor, "Squeeze", value, axis)


def _with_axes(editor: GraphEditor, op: str, value: str, axis: int) -> str:
    import numpy as np

    if editor.opset < _AXES_ARE_AN_INPUT:
        return editor.emit(op, [value], axes=[axis])
    return editor.emit(op, [value, editor.constant("axes", np.array([axis], np.int64))])


def _adopt_tensor(editor: GraphEditor, tensor: onnx.TensorProto) -> str:
    import onnx

    copy = onnx.TensorProto()
    copy.CopyFrom(tensor)
    copy.name = editor.fresh(tensor.name)
    editor.add_constant(copy)
    return copy.name


def rename_uses(node: onnx.NodeProto, renamed: Mapping[str, str]) -> None:
    """Rename what a node reads, in graphs nested in it too, but for names that those define anew."""
    node.input[:] = [renamed.get(name, name) for name in node.input]
    for attribute in node.attribute:
        for graph in [attribute.g] if attribute.HasField("g") else attribute.graphs:
            own = {value.name for value in graph.input} | {t.name for t in graph.initializer}
            own |= {name for inner in graph.node for name in inner.output}
            visible = {old: new for old, new in renamed.items() if old not in own}
            for inner in graph.node:
                rename_uses(inner, visible)
            for value in graph.output:
                value.name = visible.get(value.name, value.name)


def outer_names(node: onnx.NodeProto) -> set[str]:
    """What a node reads; of graphs nested in it what comes from outside them."""
    names = {name for name in node.input if name}
    for graph in subgraphs(node):
        own = {value.name for value in graph.input} | {t.name for t in graph.initializer}
        own |= {name for inner in graph.node for name in inner.output}
        used = {value.name for value in graph.output}
        for inner in graph.node:
            used |= outer_names(inner)
        names |= used - own
    return names

"""``If`` goes away: one branch where the condition is known, else both, and a selection.

Computing both branches costs the time of both. It is right wherever they give the same shapes, as
operators have no side effects; static_shapes.py checks that in the end, when shapes are known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgepack.importers.passes.editor import GraphEditor

if TYPE_CHECKING:
    import onnx

SELECT_PREFIX = "edgepack.select/"
"""Begins the name of each Where that stands for an If; the If's own name follows."""

_WHERE_OPSET = 9


def inline_constant_branches(model: onnx.ModelProto) -> bool:
    """Replace each If whose condition is a constant by the branch that it takes."""
    editor = GraphEditor(model)

    def rewrite(node: onnx.NodeProto) -> bool:
        if node.op_type != "If" or node.domain:
            return False
        condition = editor.constant_value(node.input[0])
        if condition is None or condition.size != 1 or not _agree(node):
            return False
        results = _inline(editor, _branch(node, taken=bool(condition.reshape(-1)[0])))
        for result, output in zip(results, node.output, strict=True):
            if output:
                editor.emit("Identity", [result], output)
        return True

    return editor.replace(rewrite)


def select_branches(model: onnx.ModelProto) -> bool:
    """Replace each other If by both branches and a Where for each output."""
    editor = GraphEditor(model)

    def rewrite(node: onnx.NodeProto) -> bool:
        if node.op_type != "If" or node.domain or editor.opset < _WHERE_OPSET:
            return False
        if not _agree(node):
            return False
        branches = [_branch(node, taken=True), _branch(node, taken=False)]
        shape = editor.shape(node.input[0])
        tensors = all(
            value.type.WhichOneof("value") in (None, "tensor_type")
            for branch in branches
            for value in branch.output
        )
        if not tensors or shape is None or any(dim != 1 for dim in shape):
            return False
        condition = editor.reshape(node.input[0], []) if shape else node.input[0]
        results = [_inline(editor, branch) for branch in branches]
        for i, output in enumerate(node.output):
            if output:
                inputs = [condition, results[0][i], results[1][i]]
                name = f"{SELECT_PREFIX}{node.name or node.output[0]}/{i}"
                editor.emit_many("Where", inputs, [output], name=name)
        return True

    return editor.replace(rewrite)


def _agree(node: onnx.NodeProto) -> bool:
    """Whether both branches give as many values as the node: ONNX's checker does not look."""
    counts = [len(_branch(node, taken=taken).output) for taken in (True, False)]
    return counts == [len(node.output)] * 2


def _branch(node: onnx.NodeProto, *, taken: bool) -> onnx.GraphProto:
    name = "then_branch" if taken else "else_branch"
    graphs: list[onnx.GraphProto] = [a.g for a in node.attribute if a.name == name]
    return graphs[0]


def _inline(editor: GraphEditor, branch: onnx.GraphProto) -> list[str]:
    """Emit a branch's nodes under fresh names; returns the names of its outputs.

    Values from outside keep theirs. Graphs nested in it see the renamed values, too.
    """
    import onnx

    renamed: dict[str, str] = {}
    for tensor in branch.initializer:
        renamed[tensor.name] = editor.fresh(tensor.name)
        copy = onnx.TensorProto()
        copy.CopyFrom(tensor)
        copy.name = renamed[tensor.name]
        editor.graph.initializer.append(copy)
    for node in branch.node:
        for output in node.output:
            if output:
                renamed[output] = editor.fresh(output)
        copied = onnx.NodeProto()
        copied.CopyFrom(node)
        copied.name = editor.fresh(node.name or node.op_type.lower())
        copied.output[:] = [renamed.get(name, name) for name in node.output]
        _rename_uses(copied, renamed)
        editor.adopt(copied)
    return [renamed.get(value.name, value.name) for value in branch.output]


def _rename_uses(node: onnx.NodeProto, renamed: dict[str, str]) -> None:
    """Rename what a node reads, in graphs nested in it too, but for names that those define anew."""
    node.input[:] = [renamed.get(name, name) for name in node.input]
    for attribute in node.attribute:
        for graph in [attribute.g] if attribute.HasField("g") else attribute.graphs:
            own = {value.name for value in graph.input} | {t.name for t in graph.initializer}
            own |= {name for inner in graph.node for name in inner.output}
            visible = {old: new for old, new in renamed.items() if old not in own}
            for inner in graph.node:
                _rename_uses(inner, visible)
            for value in graph.output:
                value.name = visible.get(value.name, value.name)

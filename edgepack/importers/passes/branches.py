"""``If`` goes away: one branch where the condition is known, else both, and a selection.

Computing both branches costs the time of both. It is right wherever they give the same shapes, as
operators have no side effects; static_shapes.py checks that in the end, when shapes are known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgepack.importers.passes.editor import GraphEditor
from edgepack.importers.passes.inlining import inline

if TYPE_CHECKING:
    import onnx

SELECT_PREFIX = "edgepack.select/"
"""Begins the name of each Where that stands for an If or ends a Loop: its operator and name follow."""

WHERE_OPSET = 9
"""The first with the operator Where."""


def inline_constant_branches(model: onnx.ModelProto) -> bool:
    """Replace each If whose condition is a constant by the branch that it takes."""
    editor = GraphEditor(model)

    def rewrite(node: onnx.NodeProto) -> bool:
        if node.op_type != "If" or node.domain:
            return False
        condition = editor.constant_value(node.input[0])
        if condition is None or condition.size != 1 or not _agree(node):
            return False
        results = inline(editor, _branch(node, taken=bool(condition.reshape(-1)[0])), {})
        for result, output in zip(results, node.output, strict=True):
            if output:
                editor.emit("Identity", [result], output)
        return True

    return editor.replace(rewrite)


def select_branches(model: onnx.ModelProto) -> bool:
    """Replace each other If by both branches and a Where for each output."""
    editor = GraphEditor(model)

    def rewrite(node: onnx.NodeProto) -> bool:
        if node.op_type != "If" or node.domain or editor.opset < WHERE_OPSET:
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
        results = [inline(editor, branch, {}) for branch in branches]
        for i, output in enumerate(node.output):
            if output:
                inputs = [condition, results[0][i], results[1][i]]
                name = f"{SELECT_PREFIX}If/{node.name or node.output[0]}/{i}"
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

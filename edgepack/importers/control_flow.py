"""Says why a ``Loop``, a ``Scan`` or an ``If`` is left when everything else has been rewritten."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgepack.errors import ModelError
from edgepack.importers.bounds import option_for
from edgepack.importers.graphs import node_label
from edgepack.importers.passes.branches import WHERE_OPSET
from edgepack.importers.passes.editor import GraphEditor
from edgepack.importers.passes.trip_counts import Loop, trip_count

if TYPE_CHECKING:
    import onnx

CONTROL_FLOW = ("If", "Loop", "Scan")


def refuse_control_flow(model: onnx.ModelProto) -> None:
    """Raise ModelError for the first such node in the main graph."""
    editor = GraphEditor(model)
    for node in model.graph.node:
        if node.op_type not in CONTROL_FLOW or node.domain:
            continue
        if any(editor.is_not_tensor(name) for name in (*node.input, *node.output)):
            continue  # a sequence, say: another error tells
        if node.op_type == "Loop":
            raise _loop(model, editor, node)
        raise ModelError(
            f"{node_label(node)} cannot be unrolled: {_REASONS[node.op_type]}",
            "Export the model without it",
        )


_REASONS = {
    "If": "its condition depends on data, and its branches give no tensors of one shape each",
    "Scan": "how long its sequences are depends on data",
}


def _loop(model: onnx.ModelProto, editor: GraphEditor, node: onnx.NodeProto) -> ModelError:
    loop = Loop.of(node)
    if loop is None:
        return ModelError(f"{node_label(node)} is not valid: its body does not fit it")
    if trip_count(model, editor, loop) == 0:
        return ModelError(
            f"{node_label(node)} makes no iteration, so that its outputs would be empty",
            "Export the model without it",
        )
    if editor.opset < WHERE_OPSET:
        return ModelError(
            f"how often {node_label(node)} runs depends on data; that needs opset {WHERE_OPSET}",
            "Export the model with a newer opset",
        )
    return ModelError(
        f"how often {node_label(node)} runs depends on data",
        f"Add {option_for(node)} for up to 100 iterations: it stops there, whatever its data say",
    )

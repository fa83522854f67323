"""Operators that others say as well: replaced by what ONNX, or here, defines them by.

The compiler then has fewer operators to know. Those that it computes better whole are not in the list.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgepack.errors import ModelError
from edgepack.importers.graphs import all_graphs
from edgepack.importers.onnx_file import one_line
from edgepack.importers.passes.editor import GraphEditor

if TYPE_CHECKING:
    import onnx

REPLACED = (("ai.onnx.preview", "FlexAttention"),)
"""Operators whose function body is taken (onnx.defs), by domain and name."""

_MAX_ROUNDS = 8
"""Bodies hold operators that have bodies; ONNX's own go two deep."""

_UNPOOLING_OPSET = 15
"""CastLike is of this version."""


def inline_functions(model: onnx.ModelProto) -> onnx.ModelProto:
    """Inline the model's own functions, and those that ONNX defines for REPLACED. Raises ModelError."""
    import onnx.inliner

    try:
        if model.functions:
            model = onnx.inliner.inline_local_functions(model)
        for _ in range(_MAX_ROUNDS):
            chosen = _used(model)
            if not chosen:
                break
            # Some bodies depend on the types of the inputs, which the inliner does not infer.
            model = onnx.shape_inference.infer_shapes(model, data_prop=True)
            model = onnx.inliner.inline_selected_functions(
                model, chosen, inline_schema_functions=True
            )
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"the model's functions cannot be inlined: {one_line(error)}") from error
    _spell_out_unpooling(model)
    return model


def _used(model: onnx.ModelProto) -> list[tuple[str, str]]:
    """Those of REPLACED that the model holds."""
    found = {
        (node.domain, node.op_type) for graph in all_graphs(model.graph) for node in graph.node
    }
    return [operator for operator in REPLACED if operator in found]


def _spell_out_unpooling(model: onnx.ModelProto) -> None:
    """Replace each MaxUnpool whose output's shape is an input: ONNX does not infer that shape.

    The places are those of the output's elements, as in ONNX Runtime and in PyTorch.
    """
    editor = GraphEditor(model)

    def rewrite(node: onnx.NodeProto) -> bool:
        import numpy as np

        if node.op_type != "MaxUnpool" or node.domain or len(node.input) < 3 or not node.input[2]:
            return False
        if editor.opset < _UNPOOLING_OPSET:
            return False
        values, places, shape = node.input
        everything = editor.constant("everything", np.array([-1], np.int64))
        size = editor.emit("ReduceProd", [shape], keepdims=1)
        zeros = editor.emit("ConstantOfShape", [size])
        empty = editor.emit("CastLike", [zeros, values])
        operands = [editor.emit("Reshape", [name, everything]) for name in (places, values)]
        scattered = editor.emit("ScatterElements", [empty, *operands], axis=0)
        editor.emit("Reshape", [scattered, shape], node.output[0])
        return True

    editor.replace(rewrite)

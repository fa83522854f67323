"""Operators that ONNX itself defines by others: replaced by their definition.

The compiler then has fewer operators to know. Those that it computes better whole are not in the list.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgepack.errors import ModelError
from edgepack.importers.graphs import all_graphs
from edgepack.importers.onnx_file import one_line

if TYPE_CHECKING:
    import onnx

REPLACED = (
    "AffineGrid",
    "Attention",
    "BlackmanWindow",
    "CausalConvWithState",
    "Celu",
    "CenterCropPad",
    "FlexAttention",
    "GroupNormalization",
    "HammingWindow",
    "HannWindow",
    "LinearAttention",
    "MeanVarianceNormalization",
    "NegativeLogLikelihoodLoss",
    "RMSNormalization",
    "RotaryEmbedding",
    "SoftmaxCrossEntropyLoss",
    "SwiGLU",
    "Swish",
)
"""Operators of the standard domain whose function body is taken (onnx.defs)."""


def inline_functions(model: onnx.ModelProto) -> onnx.ModelProto:
    """Inline the model's own functions, and those that ONNX defines for REPLACED. Raises ModelError."""
    import onnx.inliner

    try:
        if model.functions:
            model = onnx.inliner.inline_local_functions(model)
        used = {node.op_type for graph in all_graphs(model.graph) for node in graph.node}
        chosen = [("", operator) for operator in REPLACED if operator in used]
        if chosen:
            model = onnx.inliner.inline_selected_functions(
                model, chosen, inline_schema_functions=True
            )
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"the model's functions cannot be inlined: {one_line(error)}") from error
    return model

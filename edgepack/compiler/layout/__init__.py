"""Channels last through a whole graph: images as N,H,W,C, signals as N,W,C.

In this order the channels of a pixel lie side by side, which is what the kernels for convolutions
and everything around them vectorise over. ONNX has channels first. The pass follows every value
through ``main`` and moves data only where an operator needs an order that nobody has produced yet:

tensors     a value, and the orders its elements exist in
rewrite     the walk over the bindings of ``main``
windows     convolutions, pooling, resizing: always channels last
pointwise   operators that work on each element: in whichever order their operands have
axes        operators with axes to rename: concat, slices, reductions, softmax, normalisation
views       reshapes and transposes, which only rename axes and move nothing
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tvm.ir import IRModule

__all__ = ["to_channels_last"]


def to_channels_last(module: IRModule) -> IRModule:
    """``module`` with ``main`` in channels-last order inside; inputs and outputs stay as they are.

    ``main`` may hold any Relax operators on tensors whose shapes are static; what has no rule, or a
    tensor whose shape is not known, keeps ONNX's order. Constants are reordered at once.
    """
    from edgepack.compiler.layout import axes, pointwise, rewrite, views, windows

    rules = windows.RULES | pointwise.RULES | axes.RULES | views.RULES
    return rewrite.rewritten(module, rules)

"""TopK, of a number of rows and of rows whose number depends on data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgepack.importers.bounded.nodes import attribute, name_of
from edgepack.importers.bounded.sizes import Size
from edgepack.importers.bounded.tensors import Tensor
from edgepack.importers.bounded.walk import Walk

if TYPE_CHECKING:
    import onnx

K_IS_AN_INPUT = 10
"""Opset from which TopK takes the number as an input."""


def unknown_top_k(walk: Walk, node: onnx.NodeProto) -> None:
    """Of a number that the model computes: as many as the bound are taken, the best first."""
    given = walk.tensor(node.input[0])
    axis = attribute(node, "axis")
    axis = (-1 if axis is None else axis) % given.rank
    bound = walk.bound(node, given.shape[axis], stated=False)
    wanted = walk.emit("Reshape", [node.input[1], walk.numeral([])])
    zero, most = walk.numeral(0), walk.numeral(bound)
    positive = walk.emit("Where", [walk.emit("Less", [wanted, zero]), zero, wanted])
    count = walk.emit("Where", [walk.emit("Less", [most, positive]), most, positive])
    size = walk.count(count, bound, name_of(node))
    size = walk.least_of(size, given.sizes[axis])
    top_k(walk, node, axis, size)


def top_k(walk: Walk, node: onnx.NodeProto, axis: int, size: Size) -> None:
    """Emit a TopK of ``size`` along ``axis``, whose own size may depend on data."""
    import onnx

    given = walk.tensor(node.input[0])
    if size.most > given.shape[axis]:
        raise walk.refuse(node, f"it takes {size.most}, and the bound is {given.shape[axis]}")
    value = node.input[0]
    if axis in given.padded:
        lowest = attribute(node, "largest", 1) == 1
        value = walk.masked(value, [axis], extreme(given, lowest=lowest))
    kept = onnx.NodeProto()
    kept.CopyFrom(node)
    kept.input[:] = [value, walk.numeral([size.most])]
    if not size.is_fixed:
        # The best come first, whatever the model asks for: those behind them do not count.
        others = [entry for entry in node.attribute if entry.name != "sorted"]
        del kept.attribute[:]
        kept.attribute.extend(others)
    sizes = [*given.sizes[:axis], size, *given.sizes[axis + 1 :]]
    walk.keep(kept, sizes, sizes)


def extreme(tensor: Tensor, *, lowest: bool) -> Any:
    """The value of a tensor's type that no other is below, or above."""
    import numpy as np

    if tensor.dtype.kind == "f":
        return -np.inf if lowest else np.inf
    if tensor.dtype.kind == "b":
        return not lowest
    limits = np.iinfo(tensor.dtype)
    return limits.min if lowest else limits.max

"""NonMaxSuppression: as many rows as boxes are left."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgepack.importers.bounded.nodes import attribute, name_of
from edgepack.importers.bounded.sizes import fixed
from edgepack.importers.bounded.tensors import INT64, Tensor, scalar_of
from edgepack.importers.bounded.walk import Walk
from edgepack.importers.own_operators import NON_MAX_SUPPRESSION

if TYPE_CHECKING:
    import onnx

_MOST = 2
"""The input max_output_boxes_per_class."""
_ROWS = 5
"""The input of the bounded operator that tells how many boxes there are."""


def non_max_suppression(walk: Walk, node: onnx.NodeProto) -> None:
    """Boxes in ONNX's order, the first of them where there are more than the bound."""
    boxes, scores = (walk.tensor(name) for name in node.input[:2])
    rows = boxes.sizes[1]
    if set(boxes.padded) - {1} or set(scores.padded) - {2} or rows != scores.sizes[2]:
        raise walk.refuse(node, "only the number of boxes may depend on data")
    batch, classes, most = scores.shape
    per_class, stated = most, True
    if len(node.input) > _MOST and node.input[_MOST]:
        numbers = walk.numbers(node.input[_MOST])
        stated = numbers is not None
        per_class = max(min(most, numbers[0]), 0) if numbers is not None else most
    bound = walk.bound(node, max(batch * classes * per_class, 1), stated=stated)
    count = walk.editor.fresh("count")
    size = walk.count(count, bound, name_of(node))
    inputs = [*node.input, *[""] * (_ROWS - len(node.input))]
    inputs.append("" if rows.is_fixed else walk.scalar(rows))
    while not inputs[-1]:
        inputs.pop()
    outputs = {
        node.output[0]: Tensor(element=INT64, sizes=(size, fixed(3))),
        count: scalar_of(size),
    }
    center = attribute(node, "center_point_box", 0)
    walk.put(NON_MAX_SUPPRESSION, inputs, outputs, bound=bound, center_point_box=center)

"""Unique: as many rows as there are different elements."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from edgepack.importers.bounded.nodes import attribute, name_of
from edgepack.importers.bounded.sizes import fixed
from edgepack.importers.bounded.tensors import INT64, Tensor, scalar_of
from edgepack.importers.bounded.walk import Walk
from edgepack.importers.own_operators import UNIQUE

if TYPE_CHECKING:
    import onnx


def unique(walk: Walk, node: onnx.NodeProto) -> None:
    """Different elements, or slices along an axis; where each is first, which each is, how often."""
    given = walk.tensor(node.input[0])
    axis = attribute(node, "axis")
    if axis is not None:
        axis %= given.rank
    if set(given.padded) - {axis or 0} or (axis is None and given.padded and given.rank > 1):
        raise walk.refuse(node, "it compares whole tensors")
    if axis is None:
        size = given.sizes[0] if given.padded else fixed(math.prod(given.shape))
    else:
        size = given.sizes[axis]
    bound = walk.bound(node, size.most, stated=not size.is_fixed)
    count = walk.editor.fresh("count")
    found = walk.count(count, bound, name_of(node))
    kept = [found] if axis is None else [*given.sizes[:axis], found, *given.sizes[axis + 1 :]]
    names = [*node.output, "", "", ""][:4]
    sizes = [kept, [found], [size], [found]]
    outputs = {
        name or walk.editor.fresh("unused"): Tensor(element=element, sizes=tuple(each))
        for name, element, each in zip(
            names, [given.element, INT64, INT64, INT64], sizes, strict=True
        )
    }
    rows = [] if size.is_fixed else [walk.scalar(size)]
    options = {} if axis is None else {"axis": axis}
    walk.put(
        UNIQUE,
        [node.input[0], *rows],
        {**outputs, count: scalar_of(found)},
        bound=bound,
        sorted=attribute(node, "sorted", 1),
        **options,
    )

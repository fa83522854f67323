"""NonZero and Compress: as many rows as there are elements that are not zero."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from edgepack.importers.bounded.nodes import attribute, name_of
from edgepack.importers.bounded.sizes import Size, fixed
from edgepack.importers.bounded.tensors import INT64, Tensor, scalar_of
from edgepack.importers.bounded.walk import Walk
from edgepack.importers.own_operators import NON_ZERO

if TYPE_CHECKING:
    import numpy as np
    import onnx


def non_zero(walk: Walk, node: onnx.NodeProto) -> None:
    """The positions of what is not zero, first ones first."""
    given = walk.tensor(node.input[0])
    value = walk.masked(node.input[0], given.padded, 0)
    most = math.prod(given.shape)
    bound = walk.bound(node, most, stated=bool(given.padded))
    _places(walk, node, value, bound, node.output[0])


def _places(walk: Walk, node: onnx.NodeProto, value: str, bound: int, output: str) -> Size:
    """Emit the positions of what is not zero, [rank, bound]; how many there are."""
    count = walk.editor.fresh("count")
    size = walk.count(count, bound, name_of(node))
    rank = max(walk.tensor(value).rank, 1)
    outputs = {
        output: Tensor(element=INT64, sizes=(fixed(rank), size)),
        count: scalar_of(size),
    }
    walk.put(NON_ZERO, [value], outputs, bound=bound)
    return size


def compress(walk: Walk, node: onnx.NodeProto) -> None:
    """The chosen rows: a Gather by the positions of what is true in the condition."""
    data, condition = node.input
    axis = attribute(node, "axis")
    given = walk.tensor(data)
    if axis is None:
        if any(a > 0 for a in given.padded):
            raise walk.refuse(node, "it chooses from a flattened tensor")
        total = given.sizes[0].times(math.prod(given.shape[1:])) if given.rank else fixed(1)
        node.input[0] = data = walk.reshape(data, [total])
        axis, given = 0, walk.tensor(data)
    axis %= given.rank
    known = walk.constant(condition)
    if known is not None:
        _chosen_rows(walk, node, known, axis)
        return
    chosen = walk.tensor(condition)
    value = walk.masked(condition, chosen.padded, False)
    if given.sizes[axis] != chosen.sizes[0] and not given.sizes[axis].is_fixed:
        raise walk.refuse(node, "its condition has another number of elements than its axis")
    # The condition may be shorter than the axis, and never longer.
    most = min(chosen.shape[0], given.shape[axis])
    if chosen.shape[0] > most:
        value = first_rows(walk, value, most)
    bound = walk.bound(node, most, stated=bool(chosen.padded))
    positions = walk.editor.fresh("positions")
    size = _places(walk, node, value, bound, positions)
    index = walk.reshape(positions, [size])
    sizes = [*given.sizes[:axis], size, *given.sizes[axis + 1 :]]
    walk.emit("Gather", [data, index], sizes, node.output[0], axis=axis)


def _chosen_rows(walk: Walk, node: onnx.NodeProto, condition: np.ndarray, axis: int) -> None:
    """A Compress whose condition is known: a Gather of known places."""
    import numpy as np

    places = np.flatnonzero(condition)
    if not places.size:
        raise walk.refuse(node, "it chooses nothing")
    given = walk.tensor(node.input[0])
    if axis in given.padded:
        raise walk.refuse(node, "it chooses rows that need not be there")
    sizes = [*given.sizes[:axis], fixed(places.size), *given.sizes[axis + 1 :]]
    walk.emit("Gather", [node.input[0], walk.numeral(places)], sizes, node.output[0], axis=axis)


def first_rows(walk: Walk, value: str, most: int) -> str:
    """The first entries along the first axis."""
    positions = walk.numeral(list(range(most)))
    return walk.emit("Gather", [value, positions], axis=0)

"""Operators that pick, join and append rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgepack.importers.bounded.nodes import attribute
from edgepack.importers.bounded.sizes import Size, fixed
from edgepack.importers.bounded.walk import Rule, Walk

if TYPE_CHECKING:
    import onnx

_AXES_ARE_AN_INPUT = 10
"""Opset from which Slice takes starts and ends as inputs."""
_PADS_ARE_AN_INPUT = 11


def _gather(walk: Walk, node: onnx.NodeProto) -> None:
    data, indices = (walk.tensor(name) for name in node.input)
    axis = attribute(node, "axis", 0) % data.rank
    if axis in data.padded:
        node.input[1] = _from_the_start(walk, node.input[1], walk.scalar(data.sizes[axis]))
    walk.keep(node, [*data.sizes[:axis], *indices.sizes, *data.sizes[axis + 1 :]])


def _gather_elements(walk: Walk, node: onnx.NodeProto) -> None:
    data, indices = (walk.tensor(name) for name in node.input)
    axis = attribute(node, "axis", 0) % data.rank
    if axis in data.padded:
        node.input[1] = _from_the_start(walk, node.input[1], walk.scalar(data.sizes[axis]))
    walk.keep(node, indices.sizes)


def _gather_nd(walk: Walk, node: onnx.NodeProto) -> None:
    data, indices = (walk.tensor(name) for name in node.input)
    batch = attribute(node, "batch_dims", 0)
    if indices.rank - 1 in indices.padded or data.sizes[:batch] != indices.sizes[:batch]:
        raise walk.refuse(node, "the shape of its indices depends on data")
    depth = batch + indices.shape[-1]
    if any(axis in data.padded for axis in range(batch, depth)):
        extents = walk.vector(data.sizes[batch:depth])
        node.input[1] = _from_the_start(walk, node.input[1], extents)
    walk.keep(node, [*indices.sizes[:-1], *data.sizes[depth:]])


def _from_the_start(walk: Walk, indices: str, extent: str) -> str:
    """Indices that count from the end, which padding has moved, made to count from the start."""
    given = walk.tensor(indices)
    if given.dtype != walk.tensor(extent).dtype:
        extent = walk.emit("Cast", [extent], to=given.element)
    zero = walk.numeral(0, given.dtype)
    below = walk.emit("Less", [indices, zero], given.sizes)
    counted = walk.emit("Add", [indices, extent], given.sizes)
    return walk.emit("Where", [below, counted, indices], given.sizes)


def _scatter(walk: Walk, node: onnx.NodeProto) -> None:
    """Into data of fixed shape: what padding would write goes to a row of its own, then cut off."""
    import numpy as np

    data, indices, updates = (walk.tensor(name) for name in node.input)
    rows = indices.sizes[0]
    inside = set(indices.padded) | set(updates.padded)
    if data.padded or inside - {0} or updates.sizes[0] != rows:
        raise walk.refuse(node, "it writes to places that depend on data")
    extent, depth = data.shape[0], indices.shape[-1]
    row = walk.numeral(np.zeros([1, *data.shape[1:]]), data.dtype)
    whole = walk.emit("Concat", [node.input[0], row], axis=0)
    chosen = _from_the_start(walk, node.input[1], walk.numeral(data.shape[:depth]))
    outside = walk.masked(chosen, [0], [extent, *[0] * (depth - 1)])
    reduction = attribute(node, "reduction")
    options = {} if reduction is None else {"reduction": reduction}
    written = walk.emit("ScatterND", [whole, outside, node.input[2]], **options)
    first = walk.numeral(list(range(extent)))
    walk.emit("Gather", [written, first], data.sizes, node.output[0], axis=0)


def _slice(walk: Walk, node: onnx.NodeProto) -> None:
    given = walk.tensor(node.input[0])
    value, sizes = node.input[0], list(given.sizes)
    for axis, start, end, step in _cuts(walk, node, given.rank):
        if given.sizes[axis].is_fixed and start.is_fixed and end.is_fixed:
            kept = range(given.shape[axis])[start.constant : end.constant : step]
            positions, sizes[axis] = list(kept), fixed(len(kept))
        else:
            positions, sizes[axis] = _cut(walk, node, given.sizes[axis], start, end, step)
        if positions != list(range(given.shape[axis])):
            index = walk.numeral(positions)
            before = list(walk.tensor(value).sizes)
            before[axis] = sizes[axis]
            value = walk.emit("Gather", [value, index], before, axis=axis)
    walk.emit("Identity", [value], sizes, node.output[0])


def _cut(
    walk: Walk, node: onnx.NodeProto, size: Size, start: Size, end: Size, step: int
) -> tuple[list[int], Size]:
    """Positions that a slice keeps of an axis in the compiled model, and how many count."""
    if step != 1 or not start.is_fixed or start.constant < 0:
        raise walk.refuse(node, "it takes rows from the end, or in steps")
    if end.least < 0:
        if not end.is_fixed:
            raise walk.refuse(node, "where it ends is computed")
        end = walk.not_negative(size.plus(end))
    stop = walk.least_of(size, end)
    left = walk.not_negative(stop.minus(start))
    if left.most == 0:
        raise walk.refuse(node, "it leaves none of them")
    return list(range(start.constant, start.constant + left.most)), left


def _cuts(walk: Walk, node: onnx.NodeProto, rank: int) -> list[tuple[int, Size, Size, int]]:
    """Axis, start, end and step of each axis that a Slice names."""
    if walk.opset < _AXES_ARE_AN_INPUT:
        starts = [fixed(value) for value in attribute(node, "starts")]
        ends = [fixed(value) for value in attribute(node, "ends")]
        axes = attribute(node, "axes", list(range(len(starts))))
        steps = [1] * len(starts)
    else:
        given = [walk.integers(name) if name else None for name in node.input[1:]]
        given += [None] * (4 - len(given))
        if given[0] is None or given[1] is None:
            raise walk.refuse(node, "where it starts or ends is computed")
        starts, ends = given[0], given[1]
        numbers = [walk.numbers(name) if name else None for name in node.input[3:]]
        numbers += [None] * (2 - len(numbers))
        axes = numbers[0] if numbers[0] is not None else list(range(len(starts)))
        steps = numbers[1] if numbers[1] is not None else [1] * len(starts)
    axes = [axis % rank for axis in axes]
    return list(zip(axes, starts, ends, steps, strict=True))


def _concat(walk: Walk, node: onnx.NodeProto) -> None:
    tensors = [walk.tensor(name) for name in node.input]
    axis = attribute(node, "axis") % tensors[0].rank
    filled = [name for name in node.input if walk.tensor(name).sizes[axis] != _NO]
    if len(filled) < len(tensors):
        node.input[:] = filled
        tensors = [walk.tensor(name) for name in filled]
    for other in range(tensors[0].rank):
        if other != axis and len({tensor.sizes[other] for tensor in tensors}) > 1:
            raise walk.refuse(node, f"its parts have sizes along axis {other} that differ")
    parts = [tensor.sizes[axis] for tensor in tensors]
    total = fixed(0)
    for part in parts:
        total = total.plus(part)
    sizes = [*tensors[0].sizes[:axis], total, *tensors[0].sizes[axis + 1 :]]
    if all(part.is_fixed for part in parts[:-1]):
        walk.keep(node, sizes)
        return
    # Rows of a later part move up to where those of the earlier ones end.
    whole = walk.emit("Concat", list(node.input), sizes, axis=axis)
    index = _moved_up(walk, parts)
    walk.emit("Gather", [whole, index], sizes, node.output[0], axis=axis)


def _moved_up(walk: Walk, parts: Sequence[Size]) -> str:
    """Positions of the parts' rows in their concatenation, one after the other without padding."""
    import numpy as np

    most = sum(part.most for part in parts)
    rows = walk.numeral(np.arange(most))
    index, end = rows, fixed(0)
    for part in parts[:-1]:
        end = end.plus(part)
        if part.is_fixed:
            continue
        behind = walk.emit("Less", [rows, walk.scalar(end)])
        padding = walk.scalar(fixed(part.most).minus(part))
        skipped = walk.emit("Where", [behind, walk.numeral(0), padding])
        index = walk.emit("Add", [index, skipped])
    last = walk.numeral(most - 1)
    return walk.emit("Where", [walk.emit("Less", [index, last]), index, last])


def _split(walk: Walk, node: onnx.NodeProto) -> None:
    given = walk.tensor(node.input[0])
    axis = attribute(node, "axis", 0) % given.rank
    if axis in given.padded:
        raise walk.refuse(node, "it splits them")
    shapes = walk.shapes_of(node)
    walk.keep(
        node,
        *[
            [
                *given.sizes[:axis],
                fixed(shape[axis]) if shape else fixed(0),
                *given.sizes[axis + 1 :],
            ]
            for shape in shapes
        ],
    )


def _pad(walk: Walk, node: onnx.NodeProto) -> None:
    """Padding of the model's own, behind which that of the compiled model begins."""
    given = walk.tensor(node.input[0])
    pads = _pads(walk, node, given.rank)
    ends = pads[given.rank :]
    touched = [
        axis
        for axis, (size, start, end) in enumerate(zip(given.sizes, pads, ends, strict=False))
        if (start, end) != (_NO, _NO) and not (size.is_fixed and start.is_fixed and end.is_fixed)
    ]
    mode = attribute(node, "mode", b"constant")
    if touched and (mode != b"constant" or any(not pads[axis].is_fixed for axis in touched)):
        raise walk.refuse(node, "it repeats rows, or their start depends on data")
    _pad_with_constant(walk, node, pads, touched)


def _pads(walk: Walk, node: onnx.NodeProto, rank: int) -> list[Size]:
    """How much is added before every axis, then after every axis."""
    if walk.opset < _PADS_ARE_AN_INPUT:
        return [fixed(value) for value in attribute(node, "pads")]
    pads = walk.integers(node.input[1])
    axes: list[int] | None = list(range(rank))
    if len(node.input) > _PAD_AXES and node.input[_PAD_AXES]:
        axes = walk.numbers(node.input[_PAD_AXES])
        del node.input[_PAD_AXES:]
    if pads is None or axes is None:
        raise walk.refuse(node, "how much it pads is computed")
    whole = [_NO] * (2 * rank)
    for place, axis in enumerate(axes):
        whole[axis % rank] = pads[place]
        whole[axis % rank + rank] = pads[place + len(axes)]
    return whole


_PAD_AXES = 3
"""Pad's input that names axes."""
_NO = fixed(0)


def _pad_with_constant(
    walk: Walk, node: onnx.NodeProto, pads: list[Size], touched: Sequence[int]
) -> None:
    import numpy as np

    given = walk.tensor(node.input[0])
    fill = walk.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    if touched and len(node.input) > 2 and node.input[2] and fill is None:
        raise walk.refuse(node, "what it pads with is computed")
    number = attribute(node, "value", 0.0) if fill is None else fill.reshape(-1)[0]
    sizes = [
        size.plus(before).plus(after)
        for size, before, after in zip(
            given.sizes, pads[: given.rank], pads[given.rank :], strict=True
        )
    ]
    if any(size.least < 0 for size in sizes):
        raise walk.refuse(node, "it may cut more than there is")
    value = walk.masked(node.input[0], touched, np.asarray(number))
    # Behind the true rows the value is there already: what is missing is added, too much cut off.
    ends = [size.most - given.shape[a] - pads[a].constant for a, size in enumerate(sizes)]
    flat = [pad.constant for pad in pads[: given.rank]] + ends
    node.input[0] = value
    if walk.opset < _PADS_ARE_AN_INPUT:
        next(a for a in node.attribute if a.name == "pads").ints[:] = flat
    else:
        node.input[1] = walk.numeral(flat)
    walk.keep(node, sizes)


RULES: dict[str, Rule] = {
    "Concat": _concat,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "Pad": _pad,
    "ScatterND": _scatter,
    "Slice": _slice,
    "Split": _split,
}
"""By operator of ONNX's own domain."""

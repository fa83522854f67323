"""Parts of tensors, and tensors of parts: Slice, Split, Concat, CenterCropPad, ReverseSequence."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate, pairwise
from typing import Any

from edgepack.compiler.frontend.converters.padding import padded
from edgepack.compiler.frontend.converters.values import concatenated
from edgepack.compiler.frontend.node import Converter, Node, constant, constant_of, shape_of

DOMAIN = ""

Range = tuple[int, int, int]
"""Start, stop and step within an axis, as Python's slice.indices gives them."""


def _slice(node: Node) -> Any:
    shape = node.shape()
    starts, ends = (_numbers(node, index, name) for index, name in ((1, "starts"), (2, "ends")))
    assert starts is not None
    assert ends is not None
    axes = _numbers(node, 3, "axes") or list(range(len(starts)))
    steps = _numbers(node, 4, "steps") or [1] * len(starts)
    ranges = {}
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        extent = shape[axis % len(shape)]
        ranges[axis % len(shape)] = slice(start, end, step).indices(extent)
    return sliced(node, node.inputs[0], ranges)


def _numbers(node: Node, index: int, name: str) -> list[int] | None:
    """An input of new opsets that is an attribute in old ones."""
    if index >= len(node.inputs) or node.inputs[index] is None:
        return node.attributes.get(name)
    return [int(value) for value in node.known(index, name).reshape(-1)]


def sliced(node: Node, data: Any, ranges: Mapping[int, Range]) -> Any:
    """``data`` within ``ranges`` by axis; where the step is negative, turned round afterwards."""
    import numpy as np
    from tvm import relax

    shape = shape_of(data)
    value = constant_of(data)
    counts = {axis: len(range(*bounds)) for axis, bounds in ranges.items()}
    if value is not None or 0 in counts.values():
        places = [
            np.arange(*ranges[axis]) if axis in ranges else np.arange(extent)
            for axis, extent in enumerate(shape)
        ]
        empty = np.zeros([len(along) for along in places], "int8")
        found = empty if value is None else value[np.ix_(*places)]
        return constant(found, str(data.ty.dtype))
    ascending = {axis: _ascending(bounds) for axis, bounds in ranges.items()}
    cut = {a: bounds for a, bounds in ascending.items() if bounds != (0, shape[a], 1)}
    if cut:
        starts, stops, steps = zip(*cut.values(), strict=True)
        data = node.emit(relax.op.strided_slice(data, list(cut), starts, stops, steps))
    for axis, (_, _, step) in ranges.items():
        if step < 0 and counts[axis] > 1:
            data = node.emit(relax.op.flip(data, axis))
    return data


def _ascending(bounds: Range) -> Range:
    """The same places from the lowest to the highest."""
    places = range(*bounds)
    low, high = sorted((places[0], places[-1]))
    return low, high + 1, abs(places.step) if len(places) > 1 else 1


def _split(node: Node) -> list[Any]:
    """Parts along an axis: of given lengths, or as even as can be, the last one shorter."""
    shape = node.shape()
    axis = node.attributes.get("axis", 0) % len(shape)
    lengths = _numbers(node, 1, "split")
    if lengths is None:
        count = len(node.outputs)
        each = -(-shape[axis] // count)
        lengths = [max(0, min(each, shape[axis] - i * each)) for i in range(count)]
    ends = [0, *accumulate(lengths)]
    if 0 in lengths or constant_of(node.inputs[0]) is not None or len(lengths) == 1:
        return [sliced(node, node.inputs[0], {axis: (*bounds, 1)}) for bounds in pairwise(ends)]
    return _parts(node, ends[1:-1], axis)


def _parts(node: Node, places: list[int], axis: int) -> list[Any]:
    from tvm import relax

    parts = node.emit(relax.op.split(node.inputs[0], places, axis))
    return [relax.TupleGetItem(parts, index) for index in range(len(places) + 1)]


def _concat(node: Node) -> Any:
    axis = node.attributes["axis"] % len(node.shape())
    parts = [part for part in node.inputs if 0 not in shape_of(part)] or list(node.inputs[:1])
    return concatenated(node, parts, axis)


def _center_crop_pad(node: Node) -> Any:
    """The middle of what is too long, in the middle of what is too short; zeros around."""
    shape, result = node.shape(), node.outputs[0].shape
    ranges, widths = {}, []
    for axis, (extent, wanted) in enumerate(zip(shape, result, strict=True)):
        start = max(extent - wanted, 0) // 2
        if wanted < extent:
            ranges[axis] = (start, start + wanted, 1)
        before = max(wanted - extent, 0) // 2
        widths.append((before, max(wanted - extent, 0) - before))
    data = sliced(node, node.inputs[0], ranges)
    return padded(node, data, widths, "constant", constant(0, node.dtype()))


def _reverse_sequence(node: Node) -> Any:
    """The first so many entries of each line in reverse order; a length out of range is the nearest."""
    shape = node.shape()
    time = node.attributes.get("time_axis", 0) % len(shape)
    batch = node.attributes.get("batch_axis", 1) % len(shape)

    def kernel(data: Any, lengths: Any) -> Any:
        from tvm import te, tirx

        def element(*at: Any) -> Any:
            longest = tirx.const(shape[time], "int64")
            length = tirx.max(tirx.min(lengths(at[batch]), longest), tirx.const(0, "int64"))
            place = tirx.Cast("int64", at[time])
            source = tirx.Select(place < length, length - 1 - place, place)
            return data(*at[:time], source, *at[time + 1 :])

        return te.compute(shape, element)

    return node.compute(kernel, *node.inputs)


CONVERTERS: dict[str, Converter] = {
    "CenterCropPad": _center_crop_pad,
    "Concat": _concat,
    "ReverseSequence": _reverse_sequence,
    "Slice": _slice,
    "Split": _split,
}

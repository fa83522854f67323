"""GridSample and DeformConv: elements between elements, at places that a request brings.

Whatever a request holds, NaN and infinity included, is first brought near the data, and every index
into it: nothing is read outside.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

from edgepack.compiler.frontend.converters.values import along, bound, cast, reshaped, widened
from edgepack.compiler.frontend.converters.windows import Windows, windows_of
from edgepack.compiler.frontend.node import Converter, Node, dtype_of, shape_of

DOMAIN = ""

_CUBIC = -0.75
"""Keys' coefficient as PyTorch has it, which ONNX took over."""
_TAPS = {"nearest": 1, "linear": 2, "bilinear": 2, "cubic": 4, "bicubic": 4}


def _grid_sample(node: Node) -> Any:
    options = {
        "mode": node.attributes.get("mode", "linear"),
        "padding": node.attributes.get("padding_mode", "zeros"),
        "align": bool(node.attributes.get("align_corners", 0)),
    }
    if options["mode"] not in _TAPS:
        raise node.unsupported(f"mode {options['mode']!r}")
    data = widened(node, node.inputs[0])
    grid = bound(node, cast(node.inputs[1], dtype_of(data)))
    return cast(node.compute(partial(_sampled, **options), data, grid), node.dtype())


def _sampled(data: Any, grid: Any, mode: str, padding: str, align: bool) -> Any:
    """The sum over each axis' taps: their places and weights come first, one table an axis."""
    from tvm import te, tirx

    extents = [int(extent) for extent in data.shape[2:]]
    outputs, count = list(grid.shape[1:-1]), _TAPS[mode]
    axes = range(len(extents))
    at = [
        _coordinates(grid, extents[axis], len(extents) - 1 - axis, mode, padding, align)
        for axis in axes
    ]
    places = [_places(at[axis], extents[axis], count, padding, align) for axis in axes]
    weights = [_weights(at[axis], count) for axis in axes]
    taps = [te.reduce_axis((0, count), f"tap{axis}") for axis in axes]

    def element(n: Any, c: Any, *o: Any) -> Any:
        found = [places[axis](n, *o, taps[axis]) for axis in axes]
        inside = [place >= 0 for place in found] if padding == "zeros" else []
        value = data(n, c, *found)
        if inside:
            value = tirx.if_then_else(tirx.all(*inside), value, tirx.const(0, data.dtype))
        if count > 1:
            for axis in axes:
                value = value * weights[axis](n, *o, taps[axis])
        return te.sum(value, axis=taps)

    return te.compute((data.shape[0], data.shape[1], *outputs), element, name="grid_sample")


def _coordinates(grid: Any, extent: int, column: int, mode: str, padding: str, align: bool) -> Any:
    """Where on an axis of the data each sample lies, within a few elements of it."""
    from tvm import te, tirx

    def coordinate(*at: Any) -> Any:
        value = grid(*at, column) + 1.0
        value = value * ((extent - 1) / 2.0) if align else (value * float(extent) - 1.0) / 2.0
        if mode == "nearest":
            value = tirx.nearbyint(value)
        if padding == "reflection":
            return _reflected(value, *_bounds(extent, align))
        return clamped(value, -3.0, extent + 2.0)  # beyond, every tap is outside

    return te.compute(grid.shape[:-1], coordinate, name="coordinate")


def _bounds(extent: int, align: bool) -> tuple[float, float]:
    """Between which coordinates an axis is: the middles, or the edges, of its outermost elements."""
    return (0.0, extent - 1.0) if align else (-0.5, extent - 0.5)


def clamped(value: Any, low: float, high: float) -> Any:
    """``value`` within bounds; NaN becomes ``high``: a comparison with it takes the second operand."""
    from tvm import tirx

    dtype = str(value.ty)
    return tirx.max(tirx.min(value, tirx.const(high, dtype)), tirx.const(low, dtype))


def _reflected(value: Any, low: float, high: float) -> Any:
    """``value`` mirrored at the bounds as often as it takes."""
    from tvm import tirx

    dtype, span = str(value.ty), high - low
    if span <= 0:
        return tirx.const(low, dtype)
    zero, one, two = (tirx.const(number, dtype) for number in (0, 1, 2))
    below = value < tirx.const(low, dtype)
    beyond = tirx.Select(below, low - value, value - high)
    count = tirx.floor(beyond / span)
    rest = beyond - count * span
    is_odd = count - tirx.floor(count / two) * two
    # Every mirroring turns the direction: from the bound it has passed, an even number of times.
    from_low = is_odd.equal(tirx.Select(below, zero, one))
    folded = tirx.Select(from_low, low + rest, high - rest)
    is_inside = tirx.all(value >= tirx.const(low, dtype), value <= tirx.const(high, dtype))
    return clamped(tirx.Select(is_inside, value, folded), low, high)


def _places(at: Any, extent: int, count: int, padding: str, align: bool) -> Any:
    """The element of each tap: of several the second, or of four the second, is at the floor."""
    from tvm import te, tirx

    low, high = _bounds(extent, align)

    def place(*position: Any) -> Any:
        *where, tap = position
        first = tirx.floor(at(*where)) if count > 1 else at(*where)
        exact = first + tirx.Cast(at.dtype, tap) - float(count // 2 - 1 if count > 1 else 0)
        if padding == "reflection":
            exact = _reflected(exact, low, high)
        found = tirx.Cast("int32", clamped(exact, -1.0, float(extent)))
        inside = tirx.max(tirx.min(found, extent - 1), 0)
        if padding != "zeros":
            return inside
        return tirx.Select(tirx.all(found >= 0, found < extent), inside, tirx.const(-1, "int32"))

    return te.compute((*at.shape, count), place, name="place")


def _weights(at: Any, count: int) -> Any:
    from tvm import te, tirx

    def weight(*position: Any) -> Any:
        *where, tap = position
        exact = at(*where)
        offset = tirx.Cast(at.dtype, tap) - float(count // 2 - 1)
        distance = tirx.abs(exact - tirx.floor(exact) - offset)
        if count == 2:
            return 1.0 - distance
        near = ((_CUBIC + 2) * distance - (_CUBIC + 3)) * distance * distance + 1.0
        far = ((distance - 5.0) * distance + 8.0) * distance * _CUBIC - 4 * _CUBIC
        return tirx.Select(distance <= 1.0, near, far)

    return te.compute((*at.shape, count), weight, name="weight")


def _deform_conv(node: Node) -> Any:
    """The elements that each tap meets, gathered, and their product with the kernel as a matrix."""
    from tvm import relax

    groups = int(node.attributes.get("group", 1))
    data, weight, offset = (widened(node, operand) for operand in node.inputs[:3])
    windows = windows_of(node, shape_of(weight)[2:])
    batch = node.shape()[0]
    out, depth = shape_of(weight)[:2]
    parts = int(node.attributes.get("offset_group", 1))
    gathered = partial(_met_elements, windows=windows, parts=parts)
    operands = [data, offset, *([widened(node, node.inputs[4])] if node.has(4) else [])]
    met = node.compute(gathered, *operands, name="deformed")
    area = math.prod(windows.outputs)
    columns = bound(node, reshaped(met, [batch, groups, depth * windows.taps, area]))
    rows = bound(node, reshaped(weight, [groups, out // groups, depth * windows.taps]))
    product = node.emit(relax.op.matmul(rows, columns))
    result = bound(node, reshaped(product, [batch, out, *windows.outputs]))
    if node.has(3):
        spread = along(widened(node, node.inputs[3]), 1, windows.rank + 2)
        result = node.emit(relax.op.add(result, bound(node, spread)))
    return cast(result, node.dtype())


def _met_elements(data: Any, offset: Any, *mask: Any, windows: Windows, parts: int) -> Any:
    """[N, C, taps, outputs...]: the element at each tap's place, which an offset has moved."""
    from tvm import te, tirx

    batch, channels = (int(extent) for extent in data.shape[:2])
    rank, taps, each = windows.rank, windows.taps, channels // parts

    def coordinate(n: Any, part: Any, tap: Any, axis: Any, *at: Any) -> Any:
        place = windows.place(at, _unflattened(tap, windows.kernel))
        base, last = place[rank - 1], tirx.const(windows.extents[-1] + 1.0, data.dtype)
        for other in range(rank - 1):
            base = tirx.Select(axis.equal(other), place[other], base)
            end = tirx.const(windows.extents[other] + 1.0, data.dtype)
            last = tirx.Select(axis.equal(other), end, last)
        moved = offset(n, (part * taps + tap) * rank + axis, *at) + tirx.Cast(data.dtype, base)
        return tirx.max(tirx.min(moved, last), tirx.const(-2.0, data.dtype))

    where = te.compute((batch, parts, taps, rank, *windows.outputs), coordinate, name="where")

    def met(n: Any, c: Any, tap: Any, *at: Any) -> Any:
        part = tirx.floordiv(c, each)
        exact = [where(n, part, tap, axis, *at) for axis in range(rank)]
        value = _between(lambda place: data(n, c, *place), exact, windows.extents, data.dtype)
        return value * mask[0](n, part * taps + tap, *at) if mask else value

    return te.compute((batch, channels, taps, *windows.outputs), met, name="deformed")


def _unflattened(tap: Any, kernel: Sequence[int]) -> list[Any]:
    from tvm import tirx

    place: list[Any] = []
    for extent in reversed(kernel):
        place.insert(0, tirx.floormod(tap, extent))
        tap = tirx.floordiv(tap, extent)
    return place


def _between(element: Any, exact: Sequence[Any], extents: Sequence[int], dtype: str) -> Any:
    """Linear interpolation of the elements around a place; outside is zero."""
    from tvm import tirx

    rank = len(extents)
    floors = [tirx.floor(value) for value in exact]
    fractions = [value - floor for value, floor in zip(exact, floors, strict=True)]
    first = [tirx.Cast("int32", floor) for floor in floors]
    total = tirx.const(0, dtype)
    for corner in range(1 << rank):
        bits = [corner >> axis & 1 for axis in range(rank)]
        place = [first[axis] + bits[axis] for axis in range(rank)]
        inside = [test for axis in range(rank) for test in _on_axis(place[axis], extents[axis])]
        held = [tirx.max(tirx.min(place[axis], extents[axis] - 1), 0) for axis in range(rank)]
        value = tirx.if_then_else(tirx.all(*inside), element(held), tirx.const(0, dtype))
        for axis in range(rank):
            value = value * (fractions[axis] if bits[axis] else 1.0 - fractions[axis])
        total = total + value
    return total


def _on_axis(place: Any, extent: int) -> tuple[Any, Any]:
    return place >= 0, place < extent


CONVERTERS: dict[str, Converter] = {"DeformConv": _deform_conv, "GridSample": _grid_sample}

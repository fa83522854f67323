"""RoiAlign: parts of an image, as large as a request says, sampled and pooled to one size.

A kernel of its own, over images with channels last: how many elements a region has is known only
when it comes. Its bounds are brought near the image before anything is counted, so that no region
takes more than all of the image, nor reads outside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from edgepack.compiler.frontend.converters.heaps import Cell, over, statements, store, when
from edgepack.compiler.frontend.converters.sampling import clamped
from edgepack.compiler.frontend.converters.values import bound, cast, widened
from edgepack.compiler.frontend.node import Converter, Node, dtype_of
from edgepack.compiler.schedules.expressions import index

DOMAIN = ""

_HALF_PIXEL_OPSET = 16
_MOST_SAMPLES = float(1 << 40)
"""Of one axis of a bin; a region that asks for more lies outside the image but for a part of it."""
_LOWEST = -3.0e38


@dataclass(frozen=True, kw_only=True)
class _Pool:
    """The attributes of RoiAlign."""

    outputs: tuple[int, int]
    scale: float
    ratio: int
    shift: float
    """What is taken from coordinates: 0.5 where they count the middles of elements."""
    is_max: bool


def _roi_align(node: Node) -> Any:
    attributes = node.attributes
    usual = "half_pixel" if node.opset >= _HALF_PIXEL_OPSET else "output_half_pixel"
    mode = attributes.get("coordinate_transformation_mode", usual)
    pool = _Pool(
        outputs=(int(attributes.get("output_height", 1)), int(attributes.get("output_width", 1))),
        scale=float(attributes.get("spatial_scale", 1.0)),
        ratio=int(attributes.get("sampling_ratio", 0)),
        shift=0.5 if mode == "half_pixel" else 0.0,
        is_max=attributes.get("mode", "avg") == "max",
    )
    batch = bound(node, cast(node.inputs[2], "int64"))
    return pooled(node, partial(_aligned, pool=pool), batch)


def pooled(node: Node, kernel: Any, *operands: Any) -> Any:
    """The kernel's result; it takes and gives channels last."""
    from tvm import relax

    data = node.emit(relax.op.permute_dims(widened(node, node.inputs[0]), [0, 2, 3, 1]))
    regions = bound(node, cast(node.inputs[1], dtype_of(data)))
    result = node.compute(kernel, data, regions, *operands)
    return cast(node.emit(relax.op.permute_dims(result, [0, 3, 1, 2])), node.dtype())


def _aligned(data: Any, regions: Any, batch: Any, pool: _Pool) -> Any:
    from tvm import te

    shape = (int(regions.shape[0]), *pool.outputs, int(data.shape[3]))

    def body(inputs: list[Any], outputs: list[Any]) -> Any:
        data, regions, batch = inputs
        return statements(lambda: _write_aligned(data, regions, batch, outputs[0], pool))

    dtype = str(data.dtype)
    return te.extern(shape, [data, regions, batch], body, name="roi_align", dtype=dtype)


def _write_aligned(data: Any, regions: Any, batch: Any, result: Any, pool: _Pool) -> None:
    from tvm import tirx

    images, *extents, _ = (int(extent) for extent in data.shape)
    with over([int(regions.shape[0])], shared=True) as (region,):
        image = Cell(_inside(tirx.BufferLoad(batch, [region]), images)).value
        sides = [_side(regions, region, axis, pool) for axis in range(2)]
        with over(pool.outputs) as at:
            rows, columns = (
                _Samples(sides[axis], at[axis], extents[axis], pool.ratio) for axis in range(2)
            )
            place = (region, *at)
            _write_bin(data, image, rows, columns, result, place, is_max=pool.is_max)


def _inside(place: Any, extent: int) -> Any:
    from tvm import tirx

    return tirx.max(tirx.min(place, index(extent - 1)), index(0))


def _side(regions: Any, region: Any, axis: int, pool: _Pool) -> tuple[Any, Any]:
    """The start of a region along an axis (0: rows), and the length of one bin."""
    from tvm import tirx

    first, last = (
        tirx.BufferLoad(regions, [region, index(column)]) * pool.scale - pool.shift
        for column in (1 - axis, 3 - axis)
    )
    start = Cell(first).value
    length = last - start
    if not pool.shift:
        length = tirx.max(length, tirx.const(1.0, regions.dtype))
    return start, Cell(length / float(pool.outputs[axis])).value


class _Samples:
    """The samples of one bin along one axis: ``count`` of them, ``first`` to ``stop`` near the image."""

    def __init__(self, side: tuple[Any, Any], bin_number: Any, extent: int, ratio: int) -> None:
        from tvm import tirx

        start, length = side
        self.dtype, self.extent = str(length.ty), extent
        count = tirx.const(float(ratio), self.dtype) if ratio else tirx.ceil(length)
        self.count = Cell(clamped(count, 0.0, _MOST_SAMPLES)).value
        self.base = Cell(start + tirx.Cast(self.dtype, bin_number) * length).value
        self.step = Cell(length / self.count).value
        self.first, self.stop = index(0), Cell(tirx.Cast("int64", self.count)).value
        if not ratio:  # each at least half an element from the next, or one alone
            near = (tirx.floor((edge - self.base) / self.step) for edge in (-1.0, float(extent)))
            ends = (clamped(end, -4.0, _MOST_SAMPLES) for end in near)
            low, high = (tirx.Cast("int64", end) for end in ends)
            self.first = Cell(tirx.max(tirx.min(low - 2, self.stop), index(0))).value
            self.stop = Cell(tirx.min(high + 3, self.stop)).value

    def at(self, number: Any) -> _Place:
        """Where a sample lies."""
        from tvm import tirx

        exact = self.base + (tirx.Cast(self.dtype, number) + 0.5) * self.step
        return _Place(Cell(exact).value, self.extent)


class _Place:
    """A sample's place on one axis, between two elements."""

    def __init__(self, exact: Any, extent: int) -> None:
        from tvm import tirx

        self.is_near = tirx.And(exact >= -1.0, exact <= float(extent))
        held = Cell(clamped(exact, 0.0, extent - 1.0)).value
        self.low = Cell(tirx.Cast("int64", held)).value
        self.high = tirx.min(self.low + 1, index(extent - 1))
        self.fraction = Cell(held - tirx.Cast(str(held.ty), self.low)).value


def _write_bin(
    data: Any,
    image: Any,
    rows: _Samples,
    columns: _Samples,
    result: Any,
    place: tuple[Any, ...],
    *,
    is_max: bool,
) -> None:
    """The mean, or the largest, of the samples of one bin, for every channel."""
    from tvm import tirx
    from tvm.script.ir_builder import tirx as T

    channels = int(data.shape[3])
    each_channel(
        channels, result, place, lambda _: tirx.const(_LOWEST if is_max else 0.0, data.dtype)
    )
    met = Cell(tirx.const(0.0, data.dtype))
    with T.serial(rows.first, rows.stop) as row:
        y = rows.at(row)
        with T.serial(columns.first, columns.stop) as column:
            x = columns.at(column)
            with when(tirx.And(y.is_near, x.is_near)):
                met.set(met.value + 1.0)
                _add_sample(data, image, y, x, result, place, is_max=is_max)
    samples = Cell(rows.count * columns.count).value
    if is_max:  # a sample outside is 0, as is a bin without any
        nothing = tirx.Select(
            met.value < samples, tirx.const(0.0, data.dtype), tirx.const(_LOWEST, data.dtype)
        )
        least = Cell(tirx.Select(samples < 1.0, tirx.const(0.0, data.dtype), nothing)).value
        each_channel(channels, result, place, lambda old: tirx.max(old, least))
    else:
        divisor = tirx.max(samples, tirx.const(1.0, data.dtype))
        each_channel(channels, result, place, lambda old: old / divisor)


def each_channel(channels: int, result: Any, place: tuple[Any, ...], value: Any) -> None:
    """Replace each channel's element at a place by ``value`` of it."""
    from tvm import tirx

    with over([channels]) as (channel,):
        where = [*place, channel]
        store(result, where, value(tirx.BufferLoad(result, where)))


def _add_sample(
    data: Any,
    image: Any,
    y: _Place,
    x: _Place,
    result: Any,
    place: tuple[Any, ...],
    *,
    is_max: bool,
) -> None:
    """One sample to the sum; or to the largest, which ONNX takes of the weighted elements."""
    from tvm import tirx

    weights = [
        Cell(
            (y.fraction if down else 1.0 - y.fraction)
            * (x.fraction if across else 1.0 - x.fraction)
        ).value
        for down in (0, 1)
        for across in (0, 1)
    ]
    corners = [(row, column) for row in (y.low, y.high) for column in (x.low, x.high)]

    with over([int(data.shape[3])]) as (channel,):
        where = [*place, channel]
        total = tirx.BufferLoad(result, where)
        for weight, (row, column) in zip(weights, corners, strict=True):
            term = weight * tirx.BufferLoad(data, [image, row, column, channel])
            total = tirx.max(total, term) if is_max else total + term
        store(result, where, total)


CONVERTERS: dict[str, Converter] = {"RoiAlign": _roi_align}

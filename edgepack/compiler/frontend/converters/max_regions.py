"""MaxRoiPool: the largest elements of parts of an image, as large as a request says.

A kernel of its own, over images with channels last, within the image whatever the regions are.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from edgepack.compiler.frontend.converters.heaps import Cell, over, statements, store
from edgepack.compiler.frontend.converters.regions import each_channel, pooled
from edgepack.compiler.frontend.converters.sampling import clamped
from edgepack.compiler.frontend.node import Converter, Node
from edgepack.compiler.schedules.expressions import index

DOMAIN = ""


def _max_roi_pool(node: Node) -> Any:
    height, width = (int(extent) for extent in node.attributes["pooled_shape"])
    scale = float(node.attributes.get("spatial_scale", 1.0))
    return pooled(node, partial(_largest, outputs=(height, width), scale=scale))


def _largest(data: Any, regions: Any, outputs: tuple[int, int], scale: float) -> Any:
    from tvm import te

    shape = (int(regions.shape[0]), *outputs, int(data.shape[3]))

    def body(inputs: list[Any], results: list[Any]) -> Any:
        data, regions = inputs
        return statements(lambda: _write_largest(data, regions, results[0], outputs, scale))

    dtype = str(data.dtype)
    return te.extern(shape, [data, regions], body, name="max_roi_pool", dtype=dtype)


def _write_largest(
    data: Any, regions: Any, result: Any, outputs: tuple[int, int], scale: float
) -> None:
    from tvm import tirx
    from tvm.script.ir_builder import tirx as T

    images, *extents, channels = (int(extent) for extent in data.shape)
    with over([int(regions.shape[0])], shared=True) as (region,):
        number = clamped(tirx.BufferLoad(regions, [region, index(0)]), 0.0, images - 1.0)
        image = Cell(tirx.Cast("int64", number)).value
        with over(outputs) as at:
            (top, bottom), (left, right) = (
                _bin(regions, region, axis, at[axis], outputs[axis], extents[axis], scale)
                for axis in range(2)
            )
            place = (region, *at)
            is_empty = tirx.Or(bottom <= top, right <= left)
            zero, lowest = tirx.const(0.0, data.dtype), tirx.min_value(data.dtype)
            start = Cell(tirx.Select(is_empty, zero, lowest)).value
            each_channel(channels, result, place, lambda _: start)
            with T.serial(top, bottom) as y, T.serial(left, right) as x, over([channels]) as (c,):
                where = [*place, c]
                element = tirx.BufferLoad(data, [image, y, x, c])
                store(result, where, tirx.max(tirx.BufferLoad(result, where), element))


def _bin(
    regions: Any, region: Any, axis: int, number: Any, bins: int, extent: int, scale: float
) -> tuple[Any, Any]:
    """The first element of a bin along an axis (0: rows), and the one behind its last."""
    from tvm import tirx

    dtype = str(regions.dtype)
    first, last = (
        _rounded(tirx.BufferLoad(regions, [region, index(column)]) * scale)
        for column in (2 - axis, 4 - axis)
    )
    start = Cell(first).value
    length = tirx.max(last - start + 1.0, tirx.const(1.0, dtype)) / float(bins)
    here = tirx.Cast(dtype, number)
    ends = (start + tirx.floor(here * length), start + tirx.ceil((here + 1.0) * length))
    low, high = (Cell(tirx.Cast("int64", clamped(end, 0.0, float(extent)))).value for end in ends)
    return low, high


def _rounded(value: Any) -> Any:
    """To the nearest, halves away from zero."""
    from tvm import tirx

    size = tirx.floor(tirx.abs(value) + 0.5)
    return tirx.Select(value < 0.0, -size, size)


CONVERTERS: dict[str, Converter] = {"MaxRoiPool": _max_roi_pool}

"""A convolution's sizes and positions, as its stage is annotated with them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edgepack.compiler.operators import CONVOLUTION
from edgepack.compiler.schedules import emit
from edgepack.compiler.schedules.expressions import index, loads
from edgepack.compiler.schedules.stages import Stage, shape_of


@dataclass(frozen=True, kw_only=True, eq=False)
class Geometry:
    """A convolution's sizes, in elements; vertical before horizontal."""

    data: Any
    weights: Any
    channels_last: bool
    upright: bool
    """Whether rows and columns have changed places: a signal that came as an image of width 1."""
    batch: int
    height: int
    width: int
    channels: int
    """Input channels of one group."""
    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilation: tuple[int, int]
    top: int
    left: int
    groups: int
    out_height: int
    out_width: int
    out_channels: int

    def position(self, n: Any, row: Any, column: Any, channel: Any) -> list[Any]:
        """The index of a result, or of an input that is channels-last."""
        return [n, column, row, channel] if self.upright else [n, row, column, channel]

    def input_position(self, n: Any, row: Any, column: Any, channel: Any) -> list[Any]:
        """The index of an input element."""
        first, row, column, channel = self.position(n, row, column, channel)
        return (
            [first, row, column, channel] if self.channels_last else [first, channel, row, column]
        )

    @property
    def depth(self) -> int:
        """Terms of one result."""
        return self.kernel[0] * self.kernel[1] * self.channels

    @property
    def reach(self) -> int:
        """Input rows from the first of a window to its last."""
        return (self.kernel[0] - 1) * self.dilation[0] + 1

    @property
    def column_step(self) -> int:
        """Elements from an output column's input to the next one's."""
        pixel = self.channels * self.groups if self.channels_last else 1
        return pixel * self.strides[1]

    def column(self, out: int, kw: int) -> int:
        """The input column under window column ``kw`` of output column ``out``."""
        return out * self.strides[1] + kw * self.dilation[1] - self.left

    def inside(self, out: int, kw: int) -> bool:
        """Whether that column is in the image."""
        return 0 <= self.column(out, kw) < self.width

    def is_interior(self, start: int, columns: int) -> bool:
        """Whether the windows of ``columns`` output columns from ``start`` on lie in the image."""
        return all(
            self.inside(out, kw)
            for out in (start, start + columns - 1)
            for kw in (0, self.kernel[1] - 1)
        )


def geometry_of(main: Stage) -> Geometry | None:
    """The geometry that the stage is annotated with."""
    if CONVOLUTION not in main.annotations:
        return None
    described = json.loads(str(main.annotations[CONVOLUTION]))
    data, weights = [load.source for load in loads(main.value.b)]
    batch, *rest = shape_of(data)
    channels_last = described["layout"] == "NHWC"
    image = tuple(rest[:2] if channels_last else rest[1:])
    *kernel, channels, out_channels = shape_of(weights)
    out = main.shape[1:3]
    turned = slice(None, None, -1) if (image[1], kernel[1], out[1]) == (1, 1, 1) else slice(None)
    height, width = image[turned]
    rows, columns = kernel[turned]
    (down, across), (far_y, far_x) = described["strides"][turned], described["dilation"][turned]
    top, left = described["padding"][:2][turned]
    return Geometry(
        data=data,
        weights=weights,
        channels_last=channels_last,
        upright=turned.step is not None,
        batch=batch,
        height=height,
        width=width,
        channels=channels,
        kernel=(rows, columns),
        strides=(down, across),
        dilation=(far_y, far_x),
        top=top,
        left=left,
        groups=described["groups"],
        out_height=out[turned][0],
        out_width=out[turned][1],
        out_channels=out_channels,
    )


def rows_inside(geometry: Geometry, row: Any, body: emit.Body, skipped: Any = None) -> Any:
    """A loop over the window's rows that lie in the image, for output row ``row``.

    The first ``skipped`` of them are left out.
    """
    from tvm import tirx

    stop_of_last = (geometry.out_height - 1) * geometry.strides[0] + geometry.reach - geometry.top
    if geometry.top == 0 and stop_of_last <= geometry.height:
        if skipped is None:
            return emit.serial(geometry.kernel[0], body)
        return emit.between(skipped, index(geometry.kernel[0]), body)
    first, stop = _inside(geometry, 0, row)
    if skipped is not None:
        first = tirx.max(first, skipped)
        stop = tirx.max(first, stop)
    return emit.between(first, stop, body)


def columns_inside(
    geometry: Geometry, column: Any, columns: int, body: Callable[[Any, Any, bool], Any]
) -> list[Any]:
    """The window's columns that lie in the image, for a tile of ``columns`` from ``column`` on.

    ``body(first, stop, partly)`` writes a loop over some of them; ``partly`` says that they lie in the image
    for some of the tile's columns only: windows begin earlier, and end earlier, the further right they are.
    """
    from tvm import tirx

    statements: list[Any] = []
    ends = (*_inside(geometry, 1, column), *_inside(geometry, 1, column + index(columns - 1)))
    first, stop_of_first, first_of_last, stop = (emit.bind(end, "end", statements) for end in ends)
    stop = emit.bind(tirx.max(first, stop), "stop", statements)
    return [
        *statements,
        body(first_of_last, first, True),
        body(first, stop, False),
        body(stop, tirx.max(stop, stop_of_first), True),
    ]


def held_inside(geometry: Geometry, across: Any, partly: bool) -> tuple[Any, Callable[[Any], Any]]:
    """The input column ``across``, if need be one that exists; what gives 0 for what was not in the image."""
    from tvm import tirx

    if not partly:
        return across, lambda value: value
    held = tirx.max(index(0), tirx.min(index(geometry.width - 1), across))

    def or_zero(value: Any) -> Any:
        zero = tirx.const(0, value.ty.dtype)
        return tirx.Select(held.equal(across), value, zero)

    return held, or_zero


def _inside(geometry: Geometry, way: int, out: Any) -> tuple[Any, Any]:
    """The window's rows (``way`` 0) or columns (1) in the image: the first, and the one after the last."""
    from tvm import tirx

    taps, step, apart = geometry.kernel[way], geometry.strides[way], geometry.dilation[way]
    size, padding = ((geometry.height, geometry.top), (geometry.width, geometry.left))[way]

    def reached(position: int) -> Any:
        distance = index(position) - out * index(step)
        return tirx.FloorDiv(distance + index(apart - 1), index(apart))

    first = tirx.min(index(taps), tirx.max(index(0), reached(padding)))
    stop = tirx.max(first, tirx.min(index(taps), reached(padding + size)))
    return first, stop

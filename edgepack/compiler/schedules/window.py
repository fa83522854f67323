"""The loops over a convolution's window and its channels, inside a register tile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from edgepack.compiler.schedules import emit
from edgepack.compiler.schedules.columns import LOOPED
from edgepack.compiler.schedules.expressions import index
from edgepack.compiler.schedules.geometry import Geometry, columns_inside, rows_inside
from edgepack.compiler.schedules.prefetch import Ahead

_UNROLLED_CHANNELS = 4
"""Up to this many input channels are written out: a loop over them would be mostly loop."""

Taps = Callable[[Any, Any, Any, Sequence[int] | None, bool], list[Any]]
"""(row of the window, its column, channel, columns of the tile that see it) to one term's products.

Last, whether the input column may lie outside the image for some of the tile's columns (held_inside).
"""


def window(
    geometry: Geometry,
    row: Any,
    column: Any,
    edge: int | None,
    columns: int,
    taps: Taps,
    ahead: Ahead,
    skipped: Any = None,
) -> Any:
    """The products of ``columns`` results from ``column`` on; meanwhile, what comes next of the weights.

    ``edge`` is that column as a number where the tile's windows leave the image, or LOOPED, else None.
    ``skipped`` are rows at the window's start that have no weights.
    """
    height, width = geometry.kernel

    def channels(kh: Any, kw: Any, used: Sequence[int] | None, partly: bool = False) -> Any:
        if geometry.channels <= _UNROLLED_CHANNELS:
            return [taps(kh, kw, index(c), used, partly) for c in range(geometry.channels)]
        return ahead.loop(
            geometry.channels,
            lambda c: taps(kh, kw, c, used, partly),
            kh * index(width) + kw,
            height * width,
        )

    def line(kh: Any) -> Any:
        if edge is None:
            return _inner_line(geometry, kh, taps, channels, ahead)
        if edge == LOOPED:
            return columns_inside(
                geometry,
                column,
                columns,
                lambda first, stop, partly: emit.between(
                    first, stop, lambda kw: channels(kh, kw, None, partly)
                ),
            )
        inside = [
            [c for c in range(columns) if geometry.inside(edge + c, kw)] for kw in range(width)
        ]
        whole = [kw for kw in range(width) if len(inside[kw]) == columns]
        if geometry.channels > _UNROLLED_CHANNELS or not whole or not _is_one_loop(geometry):
            return [channels(kh, index(kw), used) for kw, used in enumerate(inside) if used]
        before = index(whole[0] * geometry.channels)
        together = emit.serial(
            len(whole) * geometry.channels, lambda q: taps(kh, index(0), before + q, None, False)
        )

        def seen(kw: int, used: list[int]) -> Any:
            if kw in whole:
                return together if kw == whole[0] else None
            return channels(kh, index(kw), used)

        return [seen(kw, used) for kw, used in enumerate(inside) if used]

    return rows_inside(geometry, row, line, skipped)


def _is_one_loop(geometry: Geometry) -> bool:
    """Whether a row of a window lies in order in memory, channels included."""
    return geometry.channels_last and geometry.dilation[1] == 1 and geometry.groups == 1


def _inner_line(geometry: Geometry, kh: Any, taps: Taps, channels: Any, ahead: Ahead) -> Any:
    if _is_one_loop(geometry):
        length = geometry.kernel[1] * geometry.channels
        return ahead.loop(
            length, lambda q: taps(kh, index(0), q, None, False), kh, geometry.kernel[0]
        )
    return emit.serial(geometry.kernel[1], lambda kw: channels(kh, kw, None))

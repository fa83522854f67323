"""What threads share of a product C = A * B: its rows, or its panels of columns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from edgepack.compiler.schedules import emit
from edgepack.compiler.schedules.expressions import index

_MOST_UNEVEN = 1.1
"""The largest part of the rows, as a multiple of an even one."""
_READ_AGAIN = 0.4
"""The time to read a byte from a cache that cores share, as a part of the time to get one that another
core has written: 10 to 13 GB/s beside some 30 on a Zen 3."""


@dataclass(frozen=True, kw_only=True)
class Bytes:
    """Of each matrix."""

    a: int
    b: int
    c: int


def panel_by_panel(
    panels: emit.Segments,
    rows: emit.Segments,
    body: Callable[[Any, Any, Any, Any], Any],
    along_rows: int,
    tasks: int,
) -> Any:
    """For panels: for rows: ``body(panel, which, row kind, row)``, shared by threads.

    ``along_rows`` of them share the rows of each panel, or with 1 each has panels of its own.
    """
    if along_rows > 1:
        return emit.segmented_inside(panels, rows, body)
    return emit.segmented(panels, rows, body, tasks)


def block_by_block(
    panels: emit.Segments,
    rows: emit.Segments,
    body: Callable[[Any, Any, Any, Any], Any],
    blocks: int,
    along_rows: int,
) -> Any:
    """As panel_by_panel(), but each of ``along_rows`` threads does its rows in ``blocks``, one by one.

    Where all of A leaves the second cache level, it would come from behind it for every panel anew.
    """
    from tvm import tirx

    total = sum(count for _, count in rows)
    starts = [sum(count for _, count in rows[:number]) for number in range(len(rows))]

    def block(number: Any, _: Any) -> Any:
        first, stop = emit.share(total, along_rows * blocks, number)

        def panel_of_rows(panel: Any, which: Any) -> list[Any]:
            loops = []
            for (kind, count), start in zip(rows, starts, strict=True):
                begin, end = (
                    tirx.max(index(0), tirx.min(index(count), at - index(start)))
                    for at in (first, stop)
                )
                loops.append(emit.between(begin, end, partial(body, panel, which, kind)))
            return loops

        return emit.one_by_one(panels, panel_of_rows)

    return emit.shares(along_rows * blocks, along_rows, block)


def threads_along_rows(rows: emit.Segments, sizes: Bytes, tasks: int) -> int:
    """How many threads share the rows of each panel: 1 where each has panels of its own.

    Most kernels share an image's rows. A thread that does so here too has most of its A in its own
    cache, and in the next kernel most of its C. With panels of its own it reads A whole, the most part
    from other cores' caches. With rows it reads B whole, but that nobody has written.
    """
    count = sum(number for _, number in rows)
    if tasks <= 1 or -(-count // tasks) * tasks > _MOST_UNEVEN * count:
        return 1
    return tasks if _READ_AGAIN * sizes.b < sizes.a + sizes.c / tasks else 1

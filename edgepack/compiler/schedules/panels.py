"""Operands laid out in the order in which a register tile reads them: constants, and copies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgepack.compiler.schedules import emit
from edgepack.compiler.schedules.expressions import index
from edgepack.compiler.schedules.nest import Packing, Request
from edgepack.compiler.schedules.prefetch import PAGE, PAGES_AHEAD, Ahead, is_worth
from edgepack.compiler.schedules.register_tile import Panel
from edgepack.compiler.schedules.stages import shape_of
from edgepack.compiler.schedules.values import LINE, Rows

_STREAMS = 4
"""Places of memory that a core reads at once to get the most out of it. On a Zen 3, 2 to 8 give 1.35 to 1.5
times what one gives."""


class PackedPanels:
    """[group][panel][term][lane]: ``groups`` times ``panels``, each of ``depth`` terms.

    ``order`` are the source's axes, permuted so that the results' axis is the last and those of the
    terms come before it. Where a single tile reads each panel, ``once``, it waits for memory alone: a
    panel's vectors then lie in streams, [stream][term][lane], which it reads side by side. A core that
    issues in order may foresee no more than two of them (Cortex-A53), and reads one.
    """

    def __init__(
        self,
        request: Request,
        source: Any,
        order: Sequence[int],
        panels: Sequence[Panel],
        depth: int,
        groups: int = 1,
        layout: str = "panels",
        once: bool = False,
        **arguments: Any,
    ) -> None:
        from tvm import tirx

        self.panels, self.depth, self.target = panels, depth, request.target
        self.group_elements = sum(panel.count * panel.padded for panel in panels) * depth
        nbytes = 4 * groups * self.group_elements
        far = nbytes > request.target.l2_bytes and request.target.issue == "out-of-order"
        self.in_streams = once and far
        self.buffer = tirx.decl_buffer((groups * self.group_elements,), source.dtype, source.name)
        request.memory.replace(source, self.buffer)
        self.packing = Packing(
            parameter=source,
            layout=layout,
            arguments=arguments
            | {
                "order": list(order),
                "groups": groups,
                "panels": [
                    [p.count * n, p.width // n, p.padded // n]
                    for p, n in zip(panels, map(self._streams, panels), strict=True)
                ],
            },
        )

    def at(
        self,
        panel: Panel,
        which: Any,
        term: Any,
        offset: int,
        lanes: int,
        group: Any = None,
    ) -> Any:
        """``lanes`` weights of a term, from lane ``offset`` of panel number ``which`` on."""
        part = panel.padded // self._streams(panel)
        stream, inside = divmod(offset, part)
        at = self._start(panel, which, group) + index(stream * part * self.depth + inside)
        return emit.load(self.buffer, emit.lanes_of(at + term * index(part), lanes))

    def _streams(self, panel: Panel) -> int:
        """Into how many a panel is cut, each of as many whole vectors."""
        count = len(panel.vectors)
        if not self.in_streams or panel.width < panel.padded:
            return 1
        cuts = (n for n in range(1, count + 1) if count % n == 0)
        return min(cuts, key=lambda n: (abs(n - _STREAMS), -n))

    def _start(self, panel: Panel, which: Any, group: Any) -> Any:
        before = sum(p.count * p.padded for p in self.panels if p.start < panel.start) * self.depth
        at = index(before) + which * index(self.depth * panel.padded)
        return at if group is None else group * index(self.group_elements) + at

    def ahead(
        self, panel: Panel, which: Any, row: Any, columns: int, rows: int, group: Any = None
    ) -> Ahead:
        """What a tile of ``columns`` from ``row`` on asks for, of ``rows`` that a thread does of a panel.

        Nothing where the weights stay in the first cache level.
        """
        from tvm import tirx

        (elements,) = shape_of(self.buffer)
        if not is_worth(elements, self.target):
            return Ahead(buffer=self.buffer, start=index(0), lines=0)
        size = self.depth * panel.padded
        if columns >= rows:
            streams = self._streams(panel)
            begin = self._start(panel, which, group) + index(PAGES_AHEAD * PAGE)
            return self._asked(begin, -(-size // streams // PAGE), PAGE, streams, size // streams)
        lines = -(-size // LINE)
        turn = tirx.FloorMod(row, index(rows))  # whichever thread's rows these are
        begin = tirx.FloorDiv(turn * index(lines), index(rows)) * index(LINE)
        begin = self._start(panel, which + index(1), group) + begin
        return self._asked(begin, -(-lines * columns // rows), LINE)

    def _asked(
        self, start: Any, lines: int, apart: int, streams: int = 1, between: int = 0
    ) -> Ahead:
        """From ``start`` on, or what the buffer ends with."""
        from tvm import tirx

        (elements,) = shape_of(self.buffer)
        last = index(max(0, elements - lines * apart - (streams - 1) * between))
        return Ahead(
            buffer=self.buffer,
            start=tirx.min(start, last),
            lines=lines,
            apart=apart,
            streams=streams,
            between=between,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class CopiedPanel:
    """The panel of a computed operand that a thread is at work on: [thread][terms...][lane]."""

    buffer: Any
    rows: Rows
    """The thread's place in it."""

    @classmethod
    def room(cls, panels: Sequence[Panel], depth: Sequence[int], tasks: int) -> CopiedPanel:
        """The first thread's, of room for all ``tasks``; ``depth`` are the extents of the terms."""
        from tvm import tirx

        extents = (*depth, max(panel.width for panel in panels))
        rows = Rows(slot=index(0), slots=max(1, tasks), extents=extents)
        return cls(buffer=tirx.decl_buffer((rows.elements,), "float32", "panel"), rows=rows)

    def of(self, slot: Any) -> CopiedPanel:
        """Another thread's."""
        return replace(self, rows=replace(self.rows, slot=slot))

    def made(self, panel: Panel, load: Callable[[list[Any], int, int], Any]) -> Any:
        """The copy of a panel; ``load(term, offset, lanes)`` gives what is copied."""

        def term(reduced: list[Any]) -> list[Any]:
            return [
                emit.store(
                    self.buffer,
                    self._place(reduced, v.offset, v.lanes),
                    load(reduced, v.offset, v.lanes),
                )
                for v in panel.vectors
            ]

        return emit.grid(self.rows.extents[:-1], term, 1)

    def at(self, reduced: list[Any], offset: int, lanes: int) -> Any:
        """``lanes`` of a term, from lane ``offset`` of the panel on."""
        return emit.load(self.buffer, self._place(reduced, offset, lanes))

    def _place(self, reduced: list[Any], offset: int, lanes: int) -> Any:
        return emit.lanes_of(self.rows.index([*reduced, index(offset)]), lanes)

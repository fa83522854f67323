"""Transposed convolutions, phase by phase: no product with the zeros between input pixels is made.

Output positions that leave the same remainder by the stride see the same taps of the kernel, and
walk the input one pixel at a time: each such phase is a convolution of stride 1 with a part of the
kernel, whose results lie ``stride`` apart.

    for phases (written out):  for panels of output channels:  for input rows (shared by threads):
        for tiles of columns:  registers[column][vector]
            for taps of the phase inside the image:  for channels of the group:
                registers += input[row + tap, column + tap, channel] * weights[tap, channel, vector]
            epilogue, store

Where every channel is a group of its own, a panel is a vector of channels, and the input is too. Of a
single row, as a signal has, threads share the tiles.
Where vectors are fuller with several phases in one, or there are too many to be written out, the
loops are those of phase_lanes.py.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from edgepack.compiler.schedules import emit, phase_lanes
from edgepack.compiler.schedules.columns import column_tiles, place_of, shared_lines
from edgepack.compiler.schedules.expressions import flat_index, index
from edgepack.compiler.schedules.nest import Nest, Request
from edgepack.compiler.schedules.panels import PackedPanels
from edgepack.compiler.schedules.phase_forms import best_form
from edgepack.compiler.schedules.phases import Transposed, transposed_of
from edgepack.compiler.schedules.register_tile import (
    Panel,
    best_vectors,
    make_panels,
    row_cost,
)
from edgepack.compiler.schedules.tile_body import Tile
from edgepack.compiler.schedules.values import Values

_MOST_PHASES = 16
"""More phases than this would be too much code."""
_LEAST_GAIN = 0.9
"""The time with several phases in a vector, as a part of that phase by phase, from which on it is taken."""


def schedule(request: Request) -> Nest | None:
    """Take an annotated float transposed convolution with constant weights."""
    main = request.group.main
    if main is None or request.prefix or str(main.buffer.dtype) != "float32":
        return None
    transposed = transposed_of(main)
    if transposed is None or not request.memory.kernel.is_constant(transposed.weights):
        return None
    writer = _writer(request, transposed)
    if writer is None:
        return None
    return Nest(rule="transposed", statements=writer.nest(), packings=(writer.weights.packing,))


def _writer(request: Request, transposed: Transposed) -> _Writer | phase_lanes.Writer | None:
    """What writes the loops; none for a depthwise one of many phases, which reduction.py does as fast."""
    is_short = transposed.phases <= _MOST_PHASES
    if transposed.is_depthwise:
        return _Writer(request, transposed, _panels(request, transposed)) if is_short else None
    form, cost = best_form(request, transposed)
    if is_short:
        panels = _panels(request, transposed)
        if cost >= _LEAST_GAIN * _cost(request, transposed, panels):
            return _Writer(request, transposed, panels)
    return phase_lanes.Writer(request, transposed, form)


def _panels(request: Request, transposed: Transposed) -> list[Panel]:
    """Output channels as panels, the same for every phase."""
    rows, columns = transposed.rows, transposed.columns
    width, vectors = transposed.groups, 1
    if not transposed.is_depthwise:
        width = transposed.out
        vectors = best_vectors(
            columns.count(0),
            rows.count(0),
            width,
            max(1, transposed.channels * rows.kernel * columns.kernel // transposed.phases),
            request.lanes,
            request.registers(transposed.channels * transposed.groups),
        )
    return make_panels(width, vectors, request.lanes, padded=not transposed.is_depthwise)


def _cost(request: Request, transposed: Transposed, panels: list[Panel]) -> float:
    """Estimated cycles for an image of one group, by ``panels``."""
    registers = request.registers(transposed.channels * transposed.groups)
    rows, columns = transposed.rows, transposed.columns
    return sum(
        panel.count
        * rows.count(y)
        * row_cost(
            columns.count(x),
            len(panel.vectors),
            transposed.channels * len(rows.taps(y)) * len(columns.taps(x)),
            registers,
        )
        for panel in panels
        for y in range(rows.stride)
        for x in range(columns.stride)
        if columns.count(x)
    )


class _Writer:
    """Writes the loops of one transposed convolution."""

    def __init__(self, request: Request, transposed: Transposed, panels: list[Panel]) -> None:
        self.request, self.data = request, transposed.data
        self.batch, self.channels, self.out = (
            transposed.batch,
            transposed.channels,
            transposed.out,
        )
        self.rows, self.columns = transposed.rows, transposed.columns
        self.kernel = (self.rows.kernel, self.columns.kernel)
        self.depthwise = transposed.is_depthwise
        self.groups = 1 if self.depthwise else transposed.groups
        registers = request.registers(transposed.channels * transposed.groups)
        self.panels = panels
        self.most = registers.columns(max(len(p.vectors) for p in panels))
        self.weights = PackedPanels(
            request,
            transposed.weights,
            (0, 1, 3, 2) if self.depthwise else (0, 1, 2, 3),
            panels,
            self.channels * self.kernel[0] * self.kernel[1],
            self.groups,
            inputs_grouped=self.groups > 1,
        )

    def nest(self) -> Any:
        """All loops."""
        phases = [(y, x) for y in range(self.rows.stride) for x in range(self.columns.stride)]
        panels = [(panel, panel.count) for panel in self.panels]

        def phase(n: Any, group: Any, y: int, x: int) -> Any:
            lines, tasks = self.rows.count(y), self.request.tasks
            rows = shared_lines(
                lines, self.columns.count(x), self.most, partial(self._is_interior, x), tasks
            )
            return emit.segmented(
                panels,
                rows,
                lambda panel, which, kind, i: self._part(n, group, y, x, panel, which, kind, i),
                tasks,
            )

        used = [(y, x) for y, x in phases if self.rows.count(y) and self.columns.count(x)]
        return emit.grid(
            [self.batch, self.groups], lambda at: [phase(at[0], at[1], y, x) for y, x in used], 1
        )

    def _is_interior(self, x: int, start: int, columns: int) -> bool:
        """Whether all pixels that phase ``x`` of ``columns`` from ``start`` on sees are in the image."""
        reach = [start + c + step for _, step in self.columns.taps(x) for c in (0, columns - 1)]
        return all(0 <= column < self.columns.size for column in reach)

    def _part(
        self, n: Any, group: Any, y: int, x: int, panel: Panel, which: Any, kind: Any, number: Any
    ) -> list[Any]:
        """A row of one panel, or of a single row a tile."""
        row = number if kind is None else index(0)
        tile = partial(self._tile, n, group, y, x, panel, which, row)
        if kind is not None:
            return tile(*place_of(kind, number))
        is_interior = partial(self._is_interior, x)
        return column_tiles(self.columns.count(x), self.most, is_interior, tile)

    def _tile(
        self,
        n: Any,
        group: Any,
        y: int,
        x: int,
        panel: Panel,
        which: Any,
        row: Any,
        columns: int,
        column: Any,
        edge: int | None,
    ) -> list[Any]:
        tile = Tile(self.request, columns, panel)
        first = group * index(self.out) + index(panel.start) + which * index(panel.width)
        statements = [*tile.start()]
        for kh, down in self.rows.taps(y):
            line = [
                self._tap(
                    tile, n, group, panel, which, row + index(down), column, kh, kw, across, edge
                )
                for kw, across in self.columns.taps(x)
            ]
            statements.append(self._if_inside(row, y, down, line))
        out_row = row * index(self.rows.stride) + index(y)
        statements += tile.finish(
            lambda c, offset: [
                n,
                out_row,
                (column + index(c)) * index(self.columns.stride) + index(x),
                first + offset,
            ]
        )
        return statements

    def _if_inside(self, row: Any, phase: int, step: int, body: list[Any]) -> Any:
        """``body`` where the input row is in the image; without a condition where it always is."""
        from tvm import tirx

        last = self.rows.count(phase) - 1
        conditions = []
        if step < 0:
            conditions.append(row + index(step) >= index(0))
        if last + step >= self.rows.size:
            conditions.append(row + index(step) < index(self.rows.size))
        statement = emit.sequence(body)
        return tirx.IfThenElse(tirx.all(*conditions), statement, None) if conditions else statement

    def _tap(
        self,
        tile: Tile,
        n: Any,
        group: Any,
        panel: Panel,
        which: Any,
        line: Any,
        column: Any,
        kh: int,
        kw: int,
        across: int,
        edge: int | None,
    ) -> Any:
        used = [
            c
            for c in range(tile.columns)
            if edge is None or 0 <= edge + c + across < self.columns.size
        ]
        values = Values(memory=self.request.memory, inlined=self.request.group.inlined)

        def pixel(out: int, channel: Any) -> Any:
            return values.at(self.data, [n, line, column + index(out + across), channel], True)

        if self.depthwise:
            first = index(panel.start) + which * index(panel.width)
            tap = index(kh * self.kernel[1] + kw)
            return tile.accumulate_vectors(
                lambda out, lanes: emit.widened(pixel(out, first), lanes),
                lambda lanes: self.weights.at(panel, which, tap, 0, lanes),
                used,
            )

        def channel(c: Any) -> list[Any]:
            term = flat_index((*self.kernel, self.channels), [index(kh), index(kw), c])
            return tile.accumulate(
                lambda out: pixel(out, group * index(self.channels) + c),
                lambda offset, lanes: self.weights.at(panel, which, term, offset, lanes, group),
                used,
            )

        return emit.serial(self.channels, channel) if used else None

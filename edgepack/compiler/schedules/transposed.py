"""Transposed convolutions, phase by phase: no product with the zeros between input pixels is made.

Output positions that leave the same remainder by the stride see the same taps of the kernel, and
walk the input one pixel at a time: each such phase is a convolution of stride 1 with a part of the
kernel, whose results lie ``stride`` apart.

    for phases (written out):  for panels of output channels:  for input rows (shared by threads):
        for tiles of columns:  registers[column][vector]
            for taps of the phase inside the image:  for channels of the group:
                registers += input[row + tap, column + tap, channel] * weights[tap, channel, vector]
            epilogue, store

Where every channel is a group of its own, a panel is a vector of channels, and the input is too.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from edgepack.compiler.operators import TRANSPOSED
from edgepack.compiler.schedules import emit
from edgepack.compiler.schedules.columns import column_tiles
from edgepack.compiler.schedules.expressions import flat_index, index, loads
from edgepack.compiler.schedules.nest import Nest, Request
from edgepack.compiler.schedules.panels import PackedPanels
from edgepack.compiler.schedules.register_tile import (
    Panel,
    best_vectors,
    make_panels,
)
from edgepack.compiler.schedules.stages import shape_of
from edgepack.compiler.schedules.tile_body import Tile
from edgepack.compiler.schedules.values import Values

_MOST_PHASES = 16
"""More phases than this would be too much code."""

Taps = list[tuple[int, int]]
"""(kernel position, step from the phase's own input position)."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One direction, vertical or horizontal: extents in elements."""

    size: int
    out: int
    kernel: int
    stride: int
    padding: int

    def taps(self, phase: int) -> Taps:
        """What outputs ``phase``, ``phase + stride``, … take: output ``phase + stride * i`` reads
        input ``i + step`` under kernel position k.
        """
        found = []
        for k in range(self.kernel):
            distance = phase + self.padding - k
            if distance % self.stride == 0:
                found.append((k, distance // self.stride))
        return found

    def count(self, phase: int) -> int:
        """How many outputs the phase has."""
        return max(0, -(-(self.out - phase) // self.stride))


def schedule(request: Request) -> Nest | None:
    """Take an annotated float transposed convolution with constant weights."""
    main = request.group.main
    if main is None or request.prefix or str(main.buffer.dtype) != "float32":
        return None
    if TRANSPOSED not in main.annotations:
        return None
    described = json.loads(str(main.annotations[TRANSPOSED]))
    if described["strides"][0] * described["strides"][1] > _MOST_PHASES:
        return None
    data, weights = [load.source for load in loads(main.value.b)]
    if not request.memory.kernel.is_constant(weights):
        return None
    writer = _Writer(request, data, weights, described)
    return Nest(rule="transposed", statements=writer.nest(), packings=(writer.weights.packing,))


class _Writer:
    """Writes the loops of one transposed convolution."""

    def __init__(
        self, request: Request, data: Any, weights: Any, described: dict[str, Any]
    ) -> None:
        main = request.group.main
        assert main is not None
        self.request, self.data = request, data
        self.batch, *image, channels = shape_of(data)
        *self.kernel, _, out = shape_of(weights)
        self.groups = int(described["groups"])
        self.depthwise = channels == self.groups > 1 and out == 1
        self.channels, self.out = channels // self.groups, out
        self.rows, self.columns = (
            Line(
                size=image[way],
                out=main.shape[1 + way],
                kernel=self.kernel[way],
                stride=described["strides"][way],
                padding=described["padding"][way],
            )
            for way in (0, 1)
        )
        registers = request.registers(channels)
        depth = self.channels * self.kernel[0] * self.kernel[1]
        width = channels if self.depthwise else out
        vectors = best_vectors(
            self.columns.count(0),
            self.rows.count(0),
            width,
            max(1, depth // (self.rows.stride * self.columns.stride)),
            request.lanes,
            registers,
        )
        if self.depthwise:
            vectors = 1
        self.panels = make_panels(width, vectors, request.lanes, padded=not self.depthwise)
        self.most = registers.columns(max(len(p.vectors) for p in self.panels))
        order = (0, 1, 3, 2) if self.depthwise else (0, 1, 2, 3)
        self.weights = PackedPanels(
            request,
            weights,
            order,
            self.panels,
            depth,
            1 if self.depthwise else self.groups,
            inputs_grouped=self.groups > 1 and not self.depthwise,
        )

    def nest(self) -> Any:
        """All loops."""
        phases = [(y, x) for y in range(self.rows.stride) for x in range(self.columns.stride)]
        panels = [(panel, panel.count) for panel in self.panels]

        def phase(n: Any, group: Any, y: int, x: int) -> Any:
            rows: emit.Segments = [(None, self.rows.count(y))]
            return emit.segmented(
                panels,
                rows,
                lambda panel, which, _, row: self._row(n, group, y, x, panel, which, row),
                self.request.tasks,
            )

        used = [(y, x) for y, x in phases if self.rows.count(y) and self.columns.count(x)]
        groups = 1 if self.depthwise else self.groups
        return emit.grid(
            [self.batch, groups], lambda at: [phase(at[0], at[1], y, x) for y, x in used], 1
        )

    def _row(
        self, n: Any, group: Any, y: int, x: int, panel: Panel, which: Any, row: Any
    ) -> list[Any]:
        taps = self.columns.taps(x)

        def is_interior(start: int, columns: int) -> bool:
            reach = [start + c + step for _, step in taps for c in (0, columns - 1)]
            return all(0 <= column < self.columns.size for column in reach)

        return column_tiles(
            self.columns.count(x),
            self.most,
            is_interior,
            lambda columns, column, edge: self._tile(
                n, group, y, x, panel, which, row, columns, column, edge
            ),
        )

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

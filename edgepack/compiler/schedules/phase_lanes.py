"""Transposed convolutions whose vectors hold several phases, or whose phases are too many to write out.

The whole result, before its edges are cut off, is made of blocks of stride by stride positions. All
phases of a block see the same few input pixels, under different taps: it is a convolution of stride 1
whose results are the phases' channels together. Few output channels fill a vector that way. The phases
of a row lie side by side in memory.

    for phases that are no lanes:  for panels of lanes (phase, channel):  for rows of blocks:
        for tiles of blocks:  registers[block][vector]
            for pixels of the window inside the image:  for channels of the group:
                registers += input[row + tap, column + tap, channel] * weights[tap, channel, vector]
            for phases of the panel inside the output:  epilogue, store

A panel holds whole phases: all, or so many of a row that their number times the channels is little
less than a multiple of a vector, or one, if its channels fill vectors alone. Phases that are no lanes
are loops, and the code does not grow with their number. Where a stride does not divide the kernel,
some phases lack the last tap: their weights are zero, or, of phases in a loop over y, left out.
Threads share rows, tiles of a single row or panels as in convolution.py, or phases, if those of a
row are a loop as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgepack.compiler.schedules import emit
from edgepack.compiler.schedules.columns import (
    column_tiles,
    most_of_a_thread,
    place_of,
    shared_lines,
)
from edgepack.compiler.schedules.expressions import flat_index, index
from edgepack.compiler.schedules.geometry import Geometry
from edgepack.compiler.schedules.nest import Request
from edgepack.compiler.schedules.panels import PackedPanels
from edgepack.compiler.schedules.phase_forms import Form, parts_of
from edgepack.compiler.schedules.phases import Line, Transposed
from edgepack.compiler.schedules.register_tile import Panel, Vector
from edgepack.compiler.schedules.sharing import Bytes, panel_by_panel, threads_along_rows
from edgepack.compiler.schedules.tile_body import Tile
from edgepack.compiler.schedules.values import Values
from edgepack.compiler.schedules.window import window


@dataclass(frozen=True, kw_only=True, eq=False)
class _Spot:
    """Where a tile is. ``outer``: image, group, and the phase in the loops; ``edge`` as in columns.py."""

    outer: list[Any]
    panel: Panel
    which: Any
    row: Any
    column: Any
    edge: int | None


class Writer:
    """Writes the loops of one transposed convolution in a form."""

    def __init__(self, request: Request, transposed: Transposed, form: Form) -> None:
        self.request, self.transposed, self.form = request, transposed, form
        rows, columns = transposed.rows, transposed.columns
        self.looped = (rows.stride // form.held[0], columns.stride // form.held[1])
        self.geometry = _geometry(transposed)
        registers = request.registers(transposed.channels * transposed.groups)
        self.most = registers.columns(max(len(p.vectors) for p in form.panels))
        self.together = 0
        """Blocks of a panel that a thread makes at most."""
        self.weights = PackedPanels(
            request,
            transposed.weights,
            (0, 1, 2, 3),
            form.panels,
            self.geometry.depth,
            transposed.groups * self.looped[0] * self.looped[1],
            layout="phases",
            of_inputs=transposed.groups,
            strides=[rows.stride, columns.stride],
            held=list(form.held),
        )

    def nest(self) -> Any:
        """All loops."""
        geometry = self.geometry
        panels = [(panel, panel.count) for panel in self.form.panels]
        lines, width = geometry.out_height, geometry.out_width
        down, across = self.looped
        # Threads share each phase, or the phases.
        inside, outside = (self.request.tasks, 1) if across == 1 else (1, self.request.tasks)
        rows = shared_lines(lines, width, self.most, self._is_interior, inside)
        results = sum(panel.count * panel.width for panel in self.form.panels)
        sizes = Bytes(
            a=4 * geometry.height * geometry.width * geometry.channels,
            b=4 * results * geometry.depth,
            c=4 * lines * width * results,
        )
        along = threads_along_rows(rows, sizes, inside)
        self.together = most_of_a_thread(lines, width, along)

        def phase(outer: list[Any]) -> Any:
            return panel_by_panel(
                panels,
                rows,
                lambda panel, which, kind, i: self._part(outer, panel, which, kind, i),
                along,
                inside,
            )

        loops = [geometry.batch, self.transposed.groups, down, across]
        return emit.grid(loops, phase, outside)

    def _part(self, outer: list[Any], panel: Panel, which: Any, kind: Any, number: Any) -> Any:
        """A row of blocks of one panel, or of a single row a tile."""
        row = number if kind is None else index(0)

        def tile(columns: int, column: Any, edge: int | None) -> list[Any]:
            spot = _Spot(outer=outer, panel=panel, which=which, row=row, column=column, edge=edge)
            return self._tile(spot, columns)

        if kind is None:
            tiles = column_tiles(self.geometry.out_width, self.most, self._is_interior, tile)
        else:
            tiles = tile(*place_of(kind, number))
        if self.looped[0] == 1:
            return tiles
        return _if_inside(self.transposed.rows, row, outer[2], tiles)

    def _is_interior(self, start: int, columns: int) -> bool:
        line = self.transposed.columns
        return self.geometry.is_interior(start, columns) and line.is_inside(
            (start, start + columns - 1), (0, line.stride - 1)
        )

    def _tile(self, spot: _Spot, columns: int) -> list[Any]:
        geometry, tile = self.geometry, Tile(self.request, columns, spot.panel)
        group = flat_index((self.transposed.groups, *self.looped), spot.outer[1:])

        def taps(kh: Any, kw: Any, channel: Any, used: Sequence[int] | None, _: bool) -> list[Any]:
            term = flat_index((*geometry.kernel, geometry.channels), [kh, kw, channel])
            return tile.accumulate(
                lambda block: self._input(spot, block, kh, kw, channel),
                lambda offset, lanes: self.weights.at(
                    spot.panel, spot.which, term, offset, lanes, group
                ),
                used,
            )

        place = spot.row * index(geometry.out_width) + spot.column
        ahead = self.weights.ahead(spot.panel, spot.which, place, columns, self.together, group)
        lacking = self._lacking(spot.outer[2])
        return [
            *tile.start(),
            window(geometry, spot.row, spot.column, spot.edge, columns, taps, ahead, lacking),
            *self._finish(tile, spot),
        ]

    def _input(self, spot: _Spot, block: int, kh: Any, kw: Any, channel: Any) -> Any:
        geometry = self.geometry
        values = Values(memory=self.request.memory, inlined=self.request.group.inlined)
        line = spot.row + kh - index(geometry.top)
        across = spot.column + index(block) + kw - index(geometry.left)
        n, group = spot.outer[:2]
        where = group * index(geometry.channels) + channel
        return values.at(self.transposed.data, [n, line, across, where], True)

    def _lacking(self, phase: Any) -> Any:
        """1 if a phase in a loop lacks the last tap, which comes first, else 0; None if none does."""
        from tvm import tirx

        line = self.transposed.rows
        whole = line.kernel % line.stride
        if whole == 0 or self.looped[0] == 1:
            return None
        return tirx.FloorDiv(phase + index(line.stride - whole), index(line.stride))

    def _finish(self, tile: Tile, spot: _Spot) -> list[Any]:
        """Epilogue and store, phase by phase, of those that are inside the output."""
        rows: dict[int, list[Any]] = {}
        for block in range(tile.columns):
            for vector in tile.panel.vectors:
                split = spot.edge is not None
                for part in parts_of(self.form, self.transposed, tile.panel, vector, split):
                    y, stored = self._store(tile, spot, block, vector, *part)
                    rows.setdefault(y, []).append(stored)
        if self.looped[0] > 1:
            return list(rows.values())
        return [
            _if_inside(self.transposed.rows, spot.row, index(y), stores)
            for y, stores in rows.items()
        ]

    def _store(
        self, tile: Tile, spot: _Spot, block: int, vector: Vector, first: int, lanes: int
    ) -> tuple[int, Any]:
        """A part of a vector: which row of phases among the lanes it is of, and its epilogue and store."""
        start = vector.offset + first
        y, x, channel = self._phase(spot, start)
        height = spot.outer[2] if self.looped[0] > 1 else index(y)
        line = _place(self.transposed.rows, spot.row, height)
        across, column = self.transposed.columns, spot.column + index(block)
        pixel = _place(across, column, x)

        def where(offset: Any) -> list[Any]:
            after = offset - index(start)
            if self.form.are_lanes and self.transposed.out == 1:
                return [spot.outer[0], line, pixel + after, channel]
            return [spot.outer[0], line, pixel, channel + after]

        stored = tile.store(block, vector, first, lanes, where)
        return y, stored if spot.edge is None else _if_inside(across, column, x, stored)

    def _phase(self, spot: _Spot, lane: int) -> tuple[int, Any, Any]:
        """The phase (vertical, if it is a lane, and horizontal) and channel of a panel's lane."""
        panel, out = spot.panel, self.transposed.out
        _, group, _, x = spot.outer
        channel = group * index(out)
        if not self.form.are_lanes:
            first = index(panel.start) + spot.which * index(panel.width)
            return 0, x, channel + first + index(lane)
        number, across = (panel.start + lane) // out, self.transposed.columns.stride
        x = index(number % across)
        if panel.count > 1:
            x = index(number) + spot.which * index(panel.width // out)
        return number // across, x, channel + index(lane % out)


def _geometry(transposed: Transposed) -> Geometry:
    """The blocks as results of a convolution of stride 1, of the taps of one phase."""
    rows, columns = transposed.rows, transposed.columns
    return Geometry(
        data=transposed.data,
        weights=transposed.weights,
        channels_last=True,
        upright=False,
        batch=transposed.batch,
        height=rows.size,
        width=columns.size,
        channels=transposed.channels,
        kernel=(rows.window, columns.window),
        strides=(1, 1),
        dilation=(1, 1),
        top=rows.window - 1 - rows.first,
        left=columns.window - 1 - columns.first,
        groups=transposed.groups,
        out_height=rows.blocks,
        out_width=columns.blocks,
        out_channels=transposed.groups * transposed.out * transposed.phases,
    )


def _place(line: Line, block: Any, phase: Any) -> Any:
    """The output position of a phase in a block."""
    return block * index(line.stride) + (phase + index(line.place(0, 0)))


def _if_inside(line: Line, block: Any, phase: Any, body: Any) -> Any:
    """``body`` where the phase of the block is in the output; without a condition where it always is."""
    from tvm import tirx

    if line.is_inside(_reach(block, line.blocks), _reach(phase, line.stride)):
        return body
    place = _place(line, block, phase)
    if isinstance(place, tirx.IntImm):
        return None
    inside = tirx.all(place >= index(0), place < index(line.out))
    return tirx.IfThenElse(inside, emit.sequence(body), None)


def _reach(position: Any, extent: int) -> tuple[int, int]:
    """The first and last value that a position below ``extent`` can have."""
    from tvm import tirx

    if isinstance(position, tirx.IntImm):
        return int(position.value), int(position.value)
    return 0, extent - 1

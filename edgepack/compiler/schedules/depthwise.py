"""Depthwise convolutions, and others of narrow groups: lanes are neighbouring results, whatever their groups.

    for rows (shared by threads):  for vectors of results:  for tiles of columns:
        registers[column] = 0
        for channels of a group:  for kh within the image:  weights[kh, 0..KW, channel] in registers
            for input columns under the tile:
                v = input, in each lane that channel of its group
                for kw: registers[column] += v * weights[kw]
        epilogue, store

An input vector is loaded once a row of the window and used for every column whose window holds it.
The tile has as many columns as the register file allows beside the weights and one input. Of a wide
window a few columns of weights at a time are in registers, in a loop. Edges are treated as in
convolution.py: no padding is copied, no product with padding is made.

Of a depthwise convolution v is what lies in memory. Where groups have several channels or results, and
a vector holds several groups whole, v is one shuffle of what their channels are in memory: convolution.py
would fill only as many lanes as a group has results.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from edgepack.compiler.schedules import emit
from edgepack.compiler.schedules.columns import LOOPED, column_tiles
from edgepack.compiler.schedules.expressions import flat_index, index
from edgepack.compiler.schedules.geometry import (
    Geometry,
    columns_inside,
    geometry_of,
    held_inside,
    rows_inside,
)
from edgepack.compiler.schedules.nest import Nest, Request
from edgepack.compiler.schedules.panels import PackedPanels
from edgepack.compiler.schedules.register_tile import Panel, make_panels
from edgepack.compiler.schedules.tile_body import Tile
from edgepack.compiler.schedules.values import Values

_MOST_COLUMNS = 14
_FEW_COLUMNS = 7
"""Fewer than this wait for one another's sums, and load nearly an input for every product."""
_MOST_LOADED = 2
"""Vectors that one shuffle takes from, at most: for more, LLVM writes several."""


def schedule(request: Request) -> Nest | None:
    """Take an annotated float convolution of several groups, of which a vector holds some whole."""
    main = request.group.main
    if main is None or len(request.prefix) not in (0, 2) or str(main.buffer.dtype) != "float32":
        return None
    geometry = geometry_of(main)
    if geometry is None or not geometry.channels_last or not _is_narrow(geometry, request.lanes):
        return None
    if not request.memory.kernel.is_constant(geometry.weights):
        return None
    writer = _Writer(request, geometry)
    rule = "depthwise" if geometry.channels == 1 else "narrow groups"
    return Nest(rule=rule, statements=writer.nest(), packings=(writer.weights.packing,))


def _is_narrow(geometry: Geometry, lanes: int) -> bool:
    """Whether a vector holds the results of several groups, or of one result each."""
    if geometry.groups == 1:
        return False
    width = geometry.out_channels // geometry.groups
    if geometry.channels == width == 1:
        return True
    loaded = lanes // width * geometry.channels
    return width < lanes and lanes % width == 0 and loaded <= _MOST_LOADED * lanes


class _Writer:
    """Writes the loops of one convolution."""

    def __init__(self, request: Request, geometry: Geometry) -> None:
        self.request, self.geometry = request, geometry
        registers = request.target.vector_registers
        self.few = max(1, registers // 4)
        self.taps = _taps_in_registers(geometry.kernel[1], registers, self.few)
        self.columns = max(1, min(_MOST_COLUMNS, registers - self.taps - 2))
        self.width = geometry.out_channels // geometry.groups
        self.panels = make_panels(geometry.out_channels, 1, request.lanes, padded=False)
        self.weights = PackedPanels(
            request, geometry.weights, (0, 1, 2, 3), self.panels, geometry.depth
        )

    def nest(self) -> Any:
        """All loops."""
        geometry = self.geometry
        if self.request.prefix:
            n, row = self.request.prefix
            return emit.one_by_one(
                [(panel, panel.count) for panel in self.panels],
                lambda panel, which: self._row(n, row, panel, which),
            )
        rows: emit.Segments = [(None, geometry.out_height)]
        panels = [(panel, panel.count) for panel in self.panels]

        def image(at: list[Any]) -> Any:
            return emit.segmented(
                rows,
                panels,
                lambda _, row, panel, which: self._row(at[0], row, panel, which),
                self.request.tasks,
            )

        return emit.grid([geometry.batch], image, 1)

    def _row(self, n: Any, row: Any, panel: Panel, which: Any) -> list[Any]:
        return column_tiles(
            self.geometry.out_width,
            self.columns,
            self.geometry.is_interior,
            lambda columns, column, edge: self._tile(n, row, panel, which, columns, column, edge),
            self.geometry.kernel[1],
        )

    def _tile(
        self,
        n: Any,
        row: Any,
        panel: Panel,
        which: Any,
        columns: int,
        column: Any,
        edge: int | None,
    ) -> list[Any]:
        geometry = self.geometry
        tile = Tile(self.request, columns, panel)
        first = index(panel.start) + which * index(panel.width)
        return [
            *tile.start(),
            *(
                rows_inside(
                    geometry,
                    row,
                    partial(self._line, tile, n, row, channel, panel, which, column, edge),
                )
                for channel in range(geometry.channels)
            ),
            *tile.finish(
                lambda c, offset: geometry.position(n, row, column + index(c), first + offset)
            ),
        ]

    def _line(
        self,
        tile: Tile,
        n: Any,
        row: Any,
        channel: int,
        panel: Panel,
        which: Any,
        column: Any,
        edge: int | None,
        kh: Any,
    ) -> list[Any]:
        """One row of the window: of a narrow one all columns at once, of a wide one in parts."""
        geometry, width = self.geometry, self.geometry.kernel[1]
        part = partial(self._part, tile, n, row, channel, panel, which, column, kh)
        if edge != LOOPED and (edge is None or self.taps == width):
            return emit.in_parts(width, self.taps, partial(part, edge=edge))

        def some(first: Any, stop: Any, partly: bool) -> Any:
            most = 1 if partly else min(self.taps, self.few)
            return emit.in_parts_between(first, stop, most, partial(part, partly=partly))

        return columns_inside(geometry, column, tile.columns, some)

    def _part(
        self,
        tile: Tile,
        n: Any,
        row: Any,
        channel: int,
        panel: Panel,
        which: Any,
        column: Any,
        kh: Any,
        first: Any,
        count: int,
        edge: int | None = None,
        partly: bool = False,
    ) -> list[Any]:
        """``count`` columns of the window from ``first`` on, walked along the input columns under them.

        ``partly``: these may lie outside the image.
        """
        geometry = self.geometry
        statements: list[Any] = []
        (vector,) = panel.vectors
        shape = (*geometry.kernel, geometry.channels)
        weights = []
        for kw in range(count):
            term = flat_index(shape, [kh, first + index(kw), index(channel)])
            weight = self.weights.at(panel, which, term, vector.offset, vector.lanes)
            weights.append(emit.bind(weight, "weights", statements))
        line = row * index(geometry.strides[0]) + kh * index(geometry.dilation[0])
        line = line - index(geometry.top)
        base = column * index(geometry.strides[1]) + first * index(geometry.dilation[1])
        for offset, pairs in _covered(geometry, tile.columns, count, edge):
            across = base + index(offset - geometry.left)
            value = self._input(n, line, across, channel, panel, which, partly)
            value = emit.bind(value, "value", statements)
            for out, kw in pairs:
                register = tile.sums[out][0]
                position = emit.lanes_of(index(0), vector.lanes)
                total = emit.load(register, position) + value * weights[kw]
                statements.append(emit.store(register, position, total))
        return statements

    def _input(
        self,
        n: Any,
        line: Any,
        across: Any,
        channel: int,
        panel: Panel,
        which: Any,
        partly: bool,
    ) -> Any:
        """In each lane of a result ``channel`` of its group."""
        (vector,), channels = panel.vectors, self.geometry.channels
        values = Values(memory=self.request.memory, inlined=self.request.group.inlined)
        first = index(panel.start // self.width * channels)
        first = first + which * index(panel.width // self.width * channels)
        across, or_zero = held_inside(self.geometry, across, partly)
        position = self.geometry.position(n, line, across, first)
        scalar = values.at(self.geometry.data, position, True)
        if channels == self.width == 1:
            return or_zero(emit.widened(scalar, vector.lanes))
        groups = vector.lanes // self.width
        chosen = emit.shuffled(
            emit.widened(scalar, groups * channels),
            groups * channels,
            [group * channels + channel for group in range(groups) for _ in range(self.width)],
        )
        return or_zero(chosen)


def _taps_in_registers(width: int, registers: int, few: int) -> int:
    """Window columns whose weights are in registers at once: all, if that leaves enough for the sums.

    Else about ``few``, in parts of equal size.
    """
    if registers - width - 2 >= _FEW_COLUMNS:
        return width
    return -(-width // -(-width // few))


def _covered(
    geometry: Geometry, columns: int, count: int, edge: int | None
) -> list[tuple[int, list[tuple[int, int]]]]:
    """Input columns under a tile of ``columns``, from its first window on, with the (output, kw) of each use.

    ``count`` window columns are looked at. At an edge (``edge`` is the tile's first output column)
    products with padding are left out.
    """
    found: dict[int, list[tuple[int, int]]] = {}
    for out in range(columns):
        for kw in range(count):
            if edge is not None and not geometry.inside(edge + out, kw):
                continue
            offset = out * geometry.strides[1] + kw * geometry.dilation[1]
            found.setdefault(offset, []).append((out, kw))
    return sorted(found.items())

"""Depthwise convolutions: every channel its own window, lanes are neighbouring channels.

    for rows (shared by threads):  for vectors of channels:  for tiles of columns:
        registers[column] = 0
        for kh within the image:  weights[kh, 0..KW] in registers
            for input columns under the tile:  v = input;  for kw: registers[column] += v * weights[kw]
        epilogue, store

An input vector is loaded once a row of the window and used for every column whose window holds it.
The tile has as many columns as the register file allows beside the weights and one input. Edges are
treated as in convolution.py: no padding is copied, no product with padding is made.
"""

from __future__ import annotations

from typing import Any

from edgepack.compiler.schedules import emit
from edgepack.compiler.schedules.columns import column_tiles
from edgepack.compiler.schedules.expressions import index
from edgepack.compiler.schedules.geometry import Geometry, geometry_of, rows_inside
from edgepack.compiler.schedules.nest import Nest, Request
from edgepack.compiler.schedules.panels import PackedPanels
from edgepack.compiler.schedules.register_tile import Panel, make_panels
from edgepack.compiler.schedules.tile_body import Tile
from edgepack.compiler.schedules.values import Values

_MOST_COLUMNS = 14


def schedule(request: Request) -> Nest | None:
    """Take an annotated float convolution with one input and one output channel a group."""
    main = request.group.main
    if main is None or len(request.prefix) not in (0, 2) or str(main.buffer.dtype) != "float32":
        return None
    geometry = geometry_of(main)
    if geometry is None or not geometry.channels_last or geometry.channels != 1:
        return None
    if geometry.groups == 1 or geometry.out_channels != geometry.groups:
        return None
    if not request.memory.kernel.is_constant(geometry.weights):
        return None
    writer = _Writer(request, geometry)
    return Nest(rule="depthwise", statements=writer.nest(), packings=(writer.weights.packing,))


class _Writer:
    """Writes the loops of one depthwise convolution."""

    def __init__(self, request: Request, geometry: Geometry) -> None:
        self.request, self.geometry = request, geometry
        registers = request.target.vector_registers
        self.columns = max(1, min(_MOST_COLUMNS, registers - geometry.kernel[1] - 2))
        self.panels = make_panels(geometry.out_channels, 1, request.lanes, padded=False)
        taps = geometry.kernel[0] * geometry.kernel[1]
        self.weights = PackedPanels(request, geometry.weights, (0, 1, 2, 3), self.panels, taps)

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
            rows_inside(
                geometry, row, lambda kh: self._line(tile, n, row, kh, panel, which, column, edge)
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
        kh: Any,
        panel: Panel,
        which: Any,
        column: Any,
        edge: int | None,
    ) -> list[Any]:
        """One row of the window, walked along the input columns that the tile's windows cover."""
        geometry = self.geometry
        statements: list[Any] = []
        width, (vector,) = geometry.kernel[1], panel.vectors
        weights = [
            emit.bind(
                self.weights.at(
                    panel, which, kh * index(width) + index(kw), vector.offset, vector.lanes
                ),
                "weights",
                statements,
            )
            for kw in range(width)
        ]
        line = row * index(geometry.strides[0]) + kh * index(geometry.dilation[0])
        line = line - index(geometry.top)
        first = index(panel.start) + which * index(panel.width)
        for offset, uses in _covered(geometry, tile.columns, edge):
            across = column * index(geometry.strides[1]) + index(offset - geometry.left)
            value = emit.bind(
                self._input(n, line, across, first, vector.lanes), "value", statements
            )
            for out, kw in uses:
                register = tile.sums[out][0]
                position = emit.lanes_of(index(0), vector.lanes)
                total = emit.load(register, position) + value * weights[kw]
                statements.append(emit.store(register, position, total))
        return statements

    def _input(self, n: Any, line: Any, across: Any, channel: Any, lanes: int) -> Any:
        values = Values(memory=self.request.memory, inlined=self.request.group.inlined)
        position = self.geometry.position(n, line, across, channel)
        scalar = values.at(self.geometry.data, position, True)
        return emit.widened(scalar, lanes)


def _covered(
    geometry: Geometry, columns: int, edge: int | None
) -> list[tuple[int, list[tuple[int, int]]]]:
    """Input columns under a tile, from its first window's left end, with the (output, kw) that use each.

    At an edge (``edge`` is the tile's first output column) products with padding are left out.
    """
    found: dict[int, list[tuple[int, int]]] = {}
    for out in range(columns):
        for kw in range(geometry.kernel[1]):
            if edge is not None and not geometry.inside(edge + out, kw):
                continue
            offset = out * geometry.strides[1] + kw * geometry.dilation[1]
            found.setdefault(offset, []).append((out, kw))
    return sorted(found.items())

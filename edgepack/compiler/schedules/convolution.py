"""Convolutions with a window: any kernel, stride, dilation, padding and number of groups.

    for panels of output channels:  for rows:       (or the other way round; shared by threads)
        for tiles of columns:  registers[column][vector]
            for kh within the image:  for kw:  for channels:
                registers += input[row + kh, column + kw, channel] * weights[kh, kw, channel, vector]
            epilogue, store

Padding costs nothing: the rows of the window that lie outside are left out by the bounds of the kh
loop, and tiles that touch the left or right edge, whose place is known, are written out with only
the products that lie inside; of a few channels, those columns of the window that all of the tile see are
a loop. Of a wide window many tiles touch the edge: they are in a loop, that over kw has
bounds too, and what lies inside for some columns only is multiplied as 0 in the others. In all other tiles
(kw, channel) is one loop, for without dilation it walks memory in order. Weights are packed at compile
time as [panel][kh][kw][channel][lane].
1x1 convolutions are matrix products (matmul.py), depthwise ones have their own tile (depthwise.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgepack.compiler.schedules import emit
from edgepack.compiler.schedules.columns import (
    column_tiles,
    most_of_a_thread,
    place_of,
    shared_lines,
)
from edgepack.compiler.schedules.expressions import flat_index, index
from edgepack.compiler.schedules.geometry import Geometry, geometry_of, held_inside
from edgepack.compiler.schedules.nest import Nest, Request
from edgepack.compiler.schedules.panels import PackedPanels
from edgepack.compiler.schedules.prefetch import residual_of
from edgepack.compiler.schedules.register_tile import (
    Panel,
    best_vectors,
    make_panels,
)
from edgepack.compiler.schedules.sharing import Bytes, panel_by_panel, threads_along_rows
from edgepack.compiler.schedules.tile_body import Tile
from edgepack.compiler.schedules.values import Values
from edgepack.compiler.schedules.window import window


def schedule(request: Request) -> Nest | None:
    """Take an annotated float convolution with constant weights."""
    main = request.group.main
    if main is None or request.prefix or str(main.buffer.dtype) != "float32":
        return None
    geometry = geometry_of(main)
    if geometry is None or _is_plain_product(geometry):
        return None
    if not request.memory.kernel.is_constant(geometry.weights):
        return None
    writer = _Writer(request, geometry)
    return Nest(
        rule="convolution",
        statements=writer.nest(),
        packings=(writer.weights.packing,),
    )


def _is_plain_product(geometry: Geometry) -> bool:
    """Whether matmul.py does better: one tap, and nothing outside the image."""
    return (
        geometry.kernel == (1, 1)
        and geometry.groups == 1
        and geometry.top == geometry.left == 0
        and (geometry.out_height - 1) * geometry.strides[0] < geometry.height
        and (geometry.out_width - 1) * geometry.strides[1] < geometry.width
    )


def _images_together(geometry: Geometry, cache: int) -> int:
    """Images of a batch whose rows go through one loop, as each reads all weights: ``cache`` holds them."""
    image = 4 * geometry.height * geometry.width * geometry.channels
    most = min(geometry.batch, max(1, cache // image))
    return next(count for count in range(most, 0, -1) if geometry.batch % count == 0)


class _Writer:
    """Writes the loops of one convolution."""

    def __init__(self, request: Request, geometry: Geometry) -> None:
        self.request, self.geometry = request, geometry
        registers = request.registers(geometry.column_step)
        width = geometry.out_channels // geometry.groups
        self.cache = request.target.l2_bytes // 2
        self.images = _images_together(geometry, self.cache)
        vectors = best_vectors(
            geometry.out_width,
            self.images * geometry.out_height,
            width,
            geometry.depth,
            request.lanes,
            registers,
        )
        self.panels = make_panels(width, vectors, request.lanes, padded=True)
        self.columns = registers.columns(max(len(p.vectors) for p in self.panels))
        lines = self.images * geometry.out_height
        self.weights = PackedPanels(
            request,
            geometry.weights,
            (0, 1, 2, 3),
            self.panels,
            geometry.depth,
            geometry.groups,
            once=lines == 1 and geometry.out_width <= self.columns,
        )

        self.together = 0
        """Results of a channel that a thread makes before it goes to the next panel; 0: rows are outside."""

    def nest(self) -> Any:
        """All loops, the operand that is read again more often inside."""
        geometry, tasks = self.geometry, self.request.tasks
        width = geometry.out_channels // geometry.groups
        images = self.images
        sizes = Bytes(
            a=4 * images * geometry.height * geometry.width * geometry.channels,
            b=4 * width * geometry.depth,
            c=4 * images * geometry.out_height * geometry.out_width * width,
        )
        panels = [(panel, panel.count) for panel in self.panels]
        count = sum(panel.count for panel in self.panels)
        lines = images * geometry.out_height
        rows = shared_lines(
            lines,
            geometry.out_width,
            self.columns,
            geometry.is_interior,
            tasks,
            geometry.kernel[1],
            max(len(panel.vectors) for panel in self.panels),
        )
        panels_outside = sizes.a <= self.cache or sizes.a * count < sizes.b * lines

        def outer(at: list[Any]) -> Any:
            block, group = at

            def tiles(panel: Panel, which: Any, kind: Any, number: Any) -> list[Any]:
                first = block * index(images)
                if kind is None:
                    return self._row(first, group, panel, which, number)
                return self._tile(first, group, panel, which, index(0), *place_of(kind, number))

            if panels_outside:
                threads = threads_along_rows(rows, sizes, tasks)
                self.together = most_of_a_thread(lines, geometry.out_width, threads)
                return panel_by_panel(panels, rows, tiles, threads, tasks)
            return emit.segmented(
                rows,
                panels,
                lambda kind, line, panel, which: tiles(panel, which, kind, line),
                tasks,
            )

        return emit.grid([geometry.batch // images, geometry.groups], outer, 1)

    def _row(self, first: Any, group: Any, panel: Panel, which: Any, line: Any) -> list[Any]:
        """A row of results of one panel: ``line`` counts those of all images from ``first`` on."""
        statements: list[Any] = []
        image, row = emit.position_of([self.images, self.geometry.out_height], line)
        n = emit.bind(first + image, "image", statements)
        row = emit.bind(row, "row", statements)
        return [
            *statements,
            *column_tiles(
                self.geometry.out_width,
                self.columns,
                self.geometry.is_interior,
                lambda columns, column, edge: self._tile(
                    n, group, panel, which, row, columns, column, edge
                ),
                self.geometry.kernel[1],
                len(panel.vectors),
            ),
        ]

    def _tile(
        self,
        n: Any,
        group: Any,
        panel: Panel,
        which: Any,
        row: Any,
        columns: int,
        column: Any,
        edge: int | None,
    ) -> list[Any]:
        geometry = self.geometry
        tile = Tile(self.request, columns, panel)
        width = geometry.out_channels // geometry.groups
        first = group * index(width) + index(panel.start) + which * index(panel.width)

        def taps(
            kh: Any, kw: Any, channel: Any, used: Sequence[int] | None, partly: bool
        ) -> list[Any]:
            term = flat_index((*geometry.kernel, geometry.channels), [kh, kw, channel])
            line = row * index(geometry.strides[0]) + kh * index(geometry.dilation[0])
            line = line - index(geometry.top)
            return tile.accumulate(
                lambda c: self._input(n, group, line, column + index(c), kw, channel, partly),
                lambda offset, lanes: self.weights.at(panel, which, term, offset, lanes, group),
                used,
            )

        def where(c: int, offset: Any) -> list[Any]:
            return geometry.position(n, row, column + index(c), first + offset)

        place = row * index(geometry.out_width) + column
        ahead = self.weights.ahead(panel, which, place, columns, self.together, group)
        return [
            *residual_of(self.request, columns, panel.width, where),
            *tile.start(),
            window(geometry, row, column, edge, columns, taps, ahead),
            *tile.finish(where),
        ]

    def _input(
        self, n: Any, group: Any, line: Any, column: Any, kw: Any, channel: Any, partly: bool
    ) -> Any:
        geometry = self.geometry
        across = column * index(geometry.strides[1]) + kw * index(geometry.dilation[1])
        across, or_zero = held_inside(geometry, across - index(geometry.left), partly)
        where = group * index(geometry.channels) + channel
        values = Values(memory=self.request.memory, inlined=self.request.group.inlined)
        position = geometry.input_position(n, line, across, where)
        return or_zero(values.at(geometry.data, position, True))

"""Matrix products: dense layers, batched products, 1x1 convolutions, matrix times vector.

    for panels of B:  for row tiles of A:        (or the other way round; shared by threads)
        registers[column][vector];  for k: registers += A[column, k] * B[k, vector];  epilogue, store

The outer loop is over whichever operand is read again less: with panels outside, A is read once a
panel and B once in all; with row tiles outside, the other way round. What fits half of the second
cache level is taken as free to read again; a much longer A is done in blocks of rows that do, all panels of
each, so that both are read from behind that level once a block at most. A constant B is packed panel by
panel at compile time, [panel][k][lane], so that the inner loop reads it in order; of another B whose rows
lie so far apart that they drive one another out of the first cache, or across its lines on many pages,
each panel is copied so before its row tiles. Rows of A that drive one another out, and the pixels of
short rows of an image, are copied before all (spaced_rows.py). With one row (M = 1) the tile is one
column of up to eight vectors, which keeps as many sums going as the latency needs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from edgepack.compiler.operators import TRANSPOSED
from edgepack.compiler.schedules import emit
from edgepack.compiler.schedules.expressions import flat_index, index
from edgepack.compiler.schedules.groups import is_product
from edgepack.compiler.schedules.nest import Nest, Packing, Request
from edgepack.compiler.schedules.panels import CopiedPanel, PackedPanels
from edgepack.compiler.schedules.prefetch import residual_of
from edgepack.compiler.schedules.product import Product, element_of, product_of
from edgepack.compiler.schedules.register_tile import (
    Panel,
    best_vectors,
    make_overlapping_panels,
    make_panels,
    row_tiles,
    term_bytes,
)
from edgepack.compiler.schedules.sharing import (
    Bytes,
    block_by_block,
    panel_by_panel,
    threads_along_rows,
)
from edgepack.compiler.schedules.spaced_rows import spaced
from edgepack.compiler.schedules.stages import shape_of
from edgepack.compiler.schedules.tile_body import Tile
from edgepack.compiler.schedules.values import LINE

_FAR_BYTES = 1024
"""Of terms that are less apart, prefetchers bring the next ones in time."""
_LEAST_ROWS_FOR_A_COPY = 24
"""Of A: with fewer, the copy of a panel costs more than a tenth of the product."""
_LEAST_ROWS_TO_ALIGN = 64
"""The same where all that a copy saves is second accesses for what lies across two lines."""
_NEAR_BYTES = 128 * 4096
"""On as many pages a core finds its way without a walk: first levels of translation hold 32 to 96."""
_LEAST_TILES_OF_A_BLOCK = 4
"""Of a thread: a panel of B comes from memory once a block."""


def schedule(request: Request) -> Nest | None:
    """Take a float sum of products of which one operand walks memory along the last axis."""
    main = request.group.main
    if (
        main is None
        or TRANSPOSED in main.annotations
        or not is_product(main)
        or str(main.buffer.dtype) != "float32"
    ):
        return None
    product = product_of(request)
    if product is None:
        return None
    apart = spaced(request, product)
    if apart is not None:
        product = apart.product
    rows = math.prod(main.shape[axis] for axis in product.rows)
    width = main.shape[product.columns]
    depth = math.prod(extent for _, extent in main.reduced)
    registers = request.registers(product.step)
    vectors = best_vectors(rows, 1, width, depth, request.lanes, registers, product.apart)
    if product.constant:
        panels = make_panels(width, vectors, request.lanes, padded=True)
    else:
        panels = make_overlapping_panels(width, vectors, request.lanes)
    writer = _Writer(request, product, panels)
    return Nest(
        rule="matmul",
        statements=emit.sequence(apart and apart.statements, writer.nest(rows, depth)),
        packings=tuple(writer.packings),
        workspaces=(*([apart.buffer] if apart else []), *writer.workspaces),
    )


def _first(panel: Panel, which: Any) -> Any:
    """The column that panel ``which`` of its kind begins with."""
    return index(panel.start) + which * index(panel.width)


class _Writer:
    """Writes the loops of one product."""

    def __init__(self, request: Request, product: Product, panels: list[Panel]) -> None:
        main = request.group.main
        assert main is not None
        self.request, self.product, self.panels, self.main = request, product, panels, main
        self.depth = [extent for _, extent in main.reduced]
        self.packings: list[Packing] = []
        self.workspaces: list[Any] = []
        self.weights: PackedPanels | None = None
        self.copy: CopiedPanel | None = None
        self.together = 0
        """Rows that a thread does of a panel before it goes to the next one; 0 where panels are inside."""
        if product.constant:
            self._pack()

    def _pack(self) -> None:
        """Lay B out as panels, its axes in the order (reduced axes..., n)."""
        b = self.product.b
        wanted = [v for v, _ in self.main.reduced] + [self.main.axes[self.product.columns][0]]
        order = [i for variable in wanted for i, at in enumerate(b.indices) if at.same_as(variable)]
        unit = [i for i in range(len(shape_of(b.source))) if i not in order]
        _, tiles = self._segments(math.prod(self.main.shape[axis] for axis in self.product.rows))
        self.weights = PackedPanels(
            self.request,
            b.source,
            [*unit, *order],
            self.panels,
            math.prod(self.depth),
            once=sum(number for _, number in tiles) == 1,
        )
        self.packings.append(self.weights.packing)

    def nest(self, rows: int, depth: int) -> Any:
        """All loops; which of panels and row tiles is outside depends on the operands' sizes."""
        batch = [self.main.shape[axis] for axis in self.product.batch]
        sizes = self._bytes(rows)
        cache = self.request.target.l2_bytes // 2
        count = sum(panel.count for panel in self.panels)
        panels_outside = sizes.a <= cache or sizes.a * count < sizes.b * max(1, rows // 8)
        tasks = self.request.tasks
        enough = math.prod(batch) * count >= tasks  # for every thread
        if panels_outside and enough and self._is_worth_a_copy(rows, depth):
            return self._with_copies(batch, rows, count, depth, tasks)
        if tasks > 1 and math.prod(batch) >= 4 * tasks:
            return emit.grid(batch, lambda at: self._loops(at, rows, panels_outside, 1), tasks)
        return emit.grid(batch, lambda at: self._loops(at, rows, panels_outside, tasks), 1)

    def _bytes(self, rows: int) -> Bytes:
        """Of one product of the batch."""
        width, depth = self.main.shape[self.product.columns], math.prod(self.depth)
        return Bytes(a=4 * rows * depth, b=4 * width * depth, c=4 * rows * width)

    def _is_worth_a_copy(self, rows: int, depth: int) -> bool:
        """Whether a panel's terms come slowly from where they are, for every row tile anew.

        Either they drive one another out of the first cache, and cannot be fetched early, or they lie
        across its lines and on many pages, and it does not hold the panel.
        """
        apart = self.product.apart
        if self.weights is not None or len(self.depth) != 1 or 4 * apart < _FAR_BYTES:
            return False
        file = self.request.registers(apart)
        if depth > file.rows:
            return rows >= _LEAST_ROWS_FOR_A_COPY
        term = term_bytes(max(panel.width for panel in self.panels), apart)
        is_near = file.arrival(term, depth) == 0 or 4 * apart * depth <= _NEAR_BYTES
        # At half a line's distance every other term lies within lines.
        return 2 * apart % LINE != 0 and not is_near and rows >= _LEAST_ROWS_TO_ALIGN

    def _with_copies(self, batch: list[int], rows: int, count: int, depth: int, tasks: int) -> Any:
        """Each panel of B is copied to where it lies as packed weights do, and serves all row tiles."""
        room = CopiedPanel.room(self.panels, self.depth, tasks)
        self.workspaces.append(room.buffer)
        panels, tiles = self._segments(rows)

        def one(position: Any, slot: Any) -> Any:
            *at, number = emit.position_of([*batch, count], position)
            return emit.choose(panels, number, partial(with_copy, at, room.of(slot)))

        def with_copy(at: list[Any], copy: CopiedPanel, panel: Panel, which: Any) -> list[Any]:
            self.copy = copy
            made = copy.made(panel, partial(self._loaded, at, _first(panel, which)))
            return [made, *emit.one_by_one(tiles, partial(self._tile, at, panel, which))]

        return emit.shares(math.prod(batch) * count, tasks, one)

    def _segments(self, rows: int, tasks: int = 1) -> tuple[emit.Segments, emit.Segments]:
        """The panels, and the row tiles, which ``tasks`` threads share."""
        widest = max(len(panel.vectors) for panel in self.panels)
        most = self.request.registers(self.product.step).columns(widest)
        return [(panel, panel.count) for panel in self.panels], row_tiles(rows, most, tasks)

    def _loops(self, batch: list[Any], rows: int, panels_outside: bool, tasks: int) -> Any:
        panels, tiles = self._segments(rows, tasks)
        tile = partial(self._tile, batch)
        if panels_outside:
            along_rows = threads_along_rows(tiles, self._bytes(rows), tasks)
            if along_rows == 1:
                _, tiles = self._segments(rows)
            blocks = self._blocks(rows, tiles, along_rows) if along_rows == tasks else 1
            self.together = -(-rows // (along_rows * blocks))
            if blocks > 1:
                return block_by_block(panels, tiles, tile, blocks, along_rows)
            return panel_by_panel(panels, tiles, tile, along_rows, tasks)
        return emit.segmented(tiles, panels, lambda t, n, p, w: tile(p, w, t, n), tasks)

    def _blocks(self, rows: int, tiles: emit.Segments, threads: int) -> int:
        """Into how many each of ``threads`` divides its ``tiles`` of rows: half the second cache holds each.

        Up to three quarters of it need not be divided: the rest is enough for B and C to pass through.
        """
        a, cache = self._bytes(rows).a, self.request.target.l2_bytes
        if sum(panel.count for panel in self.panels) == 1 or 4 * a <= 3 * cache:
            return 1
        most = sum(number for _, number in tiles) // (threads * _LEAST_TILES_OF_A_BLOCK)
        return max(1, min(-(-2 * a // cache), most))

    def _position(self, batch: list[Any], row: Any, column: Any) -> list[Any]:
        found: list[Any] = [*self.request.prefix]
        found += [index(0)] * (len(self.main.shape) - len(found))
        for axis, where in zip(self.product.batch, batch, strict=True):
            found[axis] = where
        if self.product.rows:
            found[self.product.rows[-1]] = row
        found[self.product.columns] = column
        return found

    def _tile(
        self, batch: list[Any], panel: Panel, which: Any, kind: tuple[int, int], number: Any
    ) -> list[Any]:
        """Tile ``number`` of a ``kind`` of row_tiles(), in panel ``which`` of its kind."""
        columns, before = kind
        row = index(before) + number * index(columns)
        tile = Tile(self.request, columns, panel)
        first = _first(panel, which)

        def term(reduced: list[Any]) -> list[Any]:
            return tile.accumulate(
                lambda column: self._a(batch, row + index(column), reduced),
                lambda offset, lanes: self._b(batch, panel, which, first, reduced, offset, lanes),
            )

        def where(column: int, offset: Any) -> list[Any]:
            return self._position(batch, row + index(column), first + offset)

        return [
            *residual_of(self.request, columns, panel.width, where),
            *tile.start(),
            self._terms(term, panel, which, row, columns),
            *tile.finish(where),
        ]

    def _terms(
        self, term: Callable[[list[Any]], Any], panel: Panel, which: Any, row: Any, columns: int
    ) -> Any:
        """The loop over the terms, and meanwhile what comes next of B."""
        deep = [axis for axis, extent in enumerate(self.depth) if extent > 1]
        if self.weights is None or len(deep) != 1:
            return emit.grid(self.depth, term, 1)
        ahead = self.weights.ahead(panel, which, row, columns, self.together)
        (axis,) = deep
        before, after = [index(0)] * axis, [index(0)] * (len(self.depth) - axis - 1)
        return ahead.loop(self.depth[axis], lambda k: term([*before, k, *after]))

    def _operand(self, operand: Any, position: list[Any], reduced: list[Any]) -> Any:
        axes = {v: p for (v, _), p in zip(self.main.axes, position, strict=True)}
        axes |= {v: p for (v, _), p in zip(self.main.reduced, reduced, strict=True)}
        return element_of(self.request, operand, axes)

    def _a(self, batch: list[Any], row: Any, reduced: list[Any]) -> Any:
        return self._operand(self.product.a, self._position(batch, row, index(0)), reduced)

    def _b(
        self,
        batch: list[Any],
        panel: Panel,
        which: Any,
        first: Any,
        reduced: list[Any],
        offset: int,
        lanes: int,
    ) -> Any:
        if self.weights is not None:
            return self.weights.at(panel, which, flat_index(self.depth, reduced), offset, lanes)
        if self.copy is not None:
            return self.copy.at(reduced, offset, lanes)
        return self._loaded(batch, first, reduced, offset, lanes)

    def _loaded(
        self, batch: list[Any], first: Any, reduced: list[Any], offset: int, lanes: int
    ) -> Any:
        """B where it is."""
        position = self._position(batch, index(0), first + index(offset))
        scalar = self._operand(self.product.b, position, reduced)
        return emit.widened(scalar, lanes)

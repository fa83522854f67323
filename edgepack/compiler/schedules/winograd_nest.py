"""The loops of a convolution by Winograd's minimal filtering; winograd.py says when and why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgepack.compiler.schedules import emit
from edgepack.compiler.schedules.expressions import index
from edgepack.compiler.schedules.geometry import Geometry
from edgepack.compiler.schedules.nest import Request
from edgepack.compiler.schedules.panels import PackedPanels
from edgepack.compiler.schedules.register_tile import (
    Panel,
    best_vectors,
    make_panels,
    row_tiles,
)
from edgepack.compiler.schedules.tile_body import Tile
from edgepack.compiler.schedules.values import Values, store_vector
from edgepack.compiler.schedules.winograd_form import Form
from edgepack.compiler.schedules.winograd_transform import both_ways

_STRIP_TILES = 28
"""Tiles in a strip, at least: two row tiles of the matrix product."""


class Writer:
    """Writes the loops of one convolution."""

    def __init__(self, request: Request, geometry: Geometry, form: Form) -> None:
        from tvm import tirx

        self.request, self.geometry, self.form = request, geometry, form
        self.down = -(-geometry.out_height // form.rows.outputs)
        self.across = -(-geometry.out_width // form.columns.outputs)
        self.tiles = geometry.batch * self.down * self.across
        self.strips, self.size = self._strips()
        registers = request.registers(geometry.channels)
        vectors = best_vectors(
            self.size, 1, geometry.out_channels, geometry.channels, request.lanes, registers
        )
        self.panels = make_panels(geometry.out_channels, vectors, request.lanes, padded=True)
        self.weights = PackedPanels(
            request,
            geometry.weights,
            (1, 0, 2, 3) if geometry.upright else (0, 1, 2, 3),
            self.panels,
            geometry.channels,
            form.products,
            layout="winograd",
            outputs=[form.rows.outputs, form.columns.outputs],
        )
        slots = max(1, request.tasks)
        self.width = sum(panel.count * panel.padded for panel in self.panels)
        part = form.products * self.size
        self.inputs = tirx.decl_buffer((slots * part * geometry.channels,), "float32", "inputs")
        self.products = tirx.decl_buffer((slots * part * self.width,), "float32", "products")

    def _strips(self) -> tuple[int, int]:
        """Number of strips, and tiles in each; the last one reaches back over the one before."""
        geometry = self.geometry
        pixel = 4 * self.form.products * (geometry.channels + geometry.out_channels)
        most = max(_STRIP_TILES, self.request.target.l2_bytes // 2 // pixel)
        count = -(-self.tiles // most)
        tasks = self.request.tasks
        if tasks > 1:
            count = min(-(-count // tasks) * tasks, self.tiles)
        return count, -(-self.tiles // count)

    def nest(self) -> Any:
        """All loops."""
        return emit.shares(self.strips, self.request.tasks, self._strip)

    def _strip(self, strip: Any, slot: Any) -> list[Any]:
        from tvm import tirx

        statements: list[Any] = []
        first = tirx.min(strip * index(self.size), index(self.tiles - self.size))
        first = emit.bind(first, "first", statements)
        return [
            *statements,
            emit.serial(self.size, lambda t: self._forward(first + t, slot, t)),
            emit.serial(self.form.products, lambda p: self._product(slot, p)),
            emit.serial(self.size, lambda t: self._back(first + t, slot, t)),
        ]

    def _corner(self, tile: Any) -> tuple[Any, Any, Any]:
        """The image of a tile, its first output row and column."""
        extents = [self.geometry.batch, self.down, self.across]
        n, row, column = emit.position_of(extents, tile)
        return n, row * index(self.form.rows.outputs), column * index(self.form.columns.outputs)

    def _vectors(self, width: int, body: Callable[[Any, int], Any]) -> list[Any]:
        """Loops over ``width`` channels: whole vectors, then a shorter one."""
        return emit.in_parts(width, self.request.lanes, body)

    def _forward(self, tile: Any, slot: Any, t: Any) -> list[Any]:
        """V of one tile."""
        from tvm import tirx

        geometry, form = self.geometry, self.form
        statements: list[Any] = []
        n, row, column = self._corner(tile)
        n = emit.bind(n, "image", statements)
        top = emit.bind(row - index(geometry.top), "top", statements)
        left = emit.bind(column - index(geometry.left), "left", statements)
        inside = tirx.all(
            top >= 0,
            top + index(form.rows.inputs) <= index(geometry.height),
            left >= 0,
            left + index(form.columns.inputs) <= index(geometry.width),
        )

        def transform(checked: bool) -> Any:
            return emit.sequence(
                self._vectors(
                    geometry.channels,
                    lambda c, lanes: self._transform(n, top, left, slot, t, c, lanes, checked),
                )
            )

        whole = tirx.IfThenElse(inside, transform(False), transform(True))
        return [*statements, whole]

    def _transform(
        self, n: Any, top: Any, left: Any, slot: Any, t: Any, c: Any, lanes: int, checked: bool
    ) -> list[Any]:
        form, statements = self.form, []  # type: ignore[var-annotated]
        pixels = [
            [
                emit.bind(
                    self._pixel(n, top + index(i), left + index(j), c, lanes, checked),
                    "pixel",
                    statements,
                )
                for j in range(form.columns.inputs)
            ]
            for i in range(form.rows.inputs)
        ]
        result = both_ways(form.rows.bt, form.columns.bt, pixels, lanes, statements)
        for p, value in enumerate(value for line in result for value in line):
            at = self._place(slot, index(p), t, self.geometry.channels) + c
            statements.append(emit.store(self.inputs, emit.lanes_of(at, lanes), value))
        return statements

    def _place(self, slot: Any, product: Any, t: Any, width: int) -> Any:
        """Where the row of tile ``t`` begins in V or M."""
        return ((slot * index(self.form.products) + product) * index(self.size) + t) * index(width)

    def _pixel(self, n: Any, row: Any, column: Any, c: Any, lanes: int, checked: bool) -> Any:
        from tvm import tirx

        geometry = self.geometry
        values = Values(memory=self.request.memory, inlined=self.request.group.inlined)
        position = geometry.position(n, row, column, c)
        scalar = values.at(geometry.data, position, True)
        vector = emit.widened(scalar, lanes)
        if not checked:
            return vector
        inside = tirx.all(
            row >= 0, row < index(geometry.height), column >= 0, column < index(geometry.width)
        )
        zero = emit.splat(tirx.FloatImm("float32", 0.0), lanes)
        return tirx.if_then_else(inside, vector, zero)

    def _product(self, slot: Any, product: Any) -> Any:
        """M[product] = V[product] * U[product], in register tiles."""
        widest = max(len(panel.vectors) for panel in self.panels)
        most = self.request.registers(self.geometry.channels).columns(widest)
        rows = row_tiles(self.size, most)
        panels = [(panel, panel.count) for panel in self.panels]

        def body(panel: Panel, which: Any, tile: tuple[int, int], number: Any) -> list[Any]:
            columns, first = tile
            row = index(first) + number * index(columns)
            return self._register_tile(slot, product, panel, which, columns, row)

        return emit.segmented(panels, rows, body, 1)

    def _register_tile(
        self, slot: Any, product: Any, panel: Panel, which: Any, columns: int, row: Any
    ) -> list[Any]:
        channels = self.geometry.channels
        tile = Tile(self.request, columns, panel)

        def term(c: Any) -> list[Any]:
            return tile.accumulate(
                lambda out: emit.load(
                    self.inputs, self._place(slot, product, row + index(out), channels) + c
                ),
                lambda offset, lanes: self.weights.at(panel, which, c, offset, lanes, product),
            )

        ahead = self.weights.ahead(panel, which, row, columns, self.size, product)
        statements = [*tile.start(), *ahead.loop(channels, term)]
        first = index(panel.start) + which * index(panel.padded)
        for out, registers in enumerate(tile.sums):
            for register, vector in zip(registers, panel.vectors, strict=True):
                at = self._place(slot, product, row + index(out), self.width)
                at = at + first + index(vector.offset)
                value = emit.load(register, emit.lanes_of(index(0), vector.lanes))
                statements.append(emit.store(self.products, emit.lanes_of(at, vector.lanes), value))
        return statements

    def _back(self, tile: Any, slot: Any, t: Any) -> list[Any]:
        """The results of one tile."""
        statements: list[Any] = []
        n, row, column = self._corner(tile)
        n = emit.bind(n, "image", statements)
        row = emit.bind(row, "row", statements)
        column = emit.bind(column, "column", statements)
        return [
            *statements,
            *self._vectors(
                self.geometry.out_channels,
                lambda o, lanes: self._results(n, row, column, slot, t, o, lanes),
            ),
        ]

    def _results(
        self, n: Any, row: Any, column: Any, slot: Any, t: Any, o: Any, lanes: int
    ) -> list[Any]:
        from tvm import tirx

        form, geometry = self.form, self.geometry
        statements: list[Any] = []
        products = [
            [
                emit.bind(
                    emit.load(
                        self.products,
                        emit.lanes_of(
                            self._place(slot, index(i * form.columns.inputs + j), t, self.width)
                            + o,
                            lanes,
                        ),
                    ),
                    "product",
                    statements,
                )
                for j in range(form.columns.inputs)
            ]
            for i in range(form.rows.inputs)
        ]
        results = both_ways(form.rows.at, form.columns.at, products, lanes, statements)
        registers = []
        for line in results:
            for value in line:
                register = emit.registers(lanes, "float32", "result")
                statements += emit.allocate([register])
                statements.append(emit.store(register, emit.lanes_of(index(0), lanes), value))
                registers.append(register)

        def stores(checked: bool) -> Any:
            written = []
            for number, register in enumerate(registers):
                i, j = divmod(number, form.columns.outputs)
                store = emit.sequence(
                    self._store(n, row + index(i), column + index(j), o, register, lanes)
                )
                if checked and number:
                    inside = tirx.all(
                        row + index(i) < index(geometry.out_height),
                        column + index(j) < index(geometry.out_width),
                    )
                    store = tirx.IfThenElse(inside, store, None)
                written.append(store)
            return emit.sequence(written)

        exact = (
            geometry.out_height % form.rows.outputs == 0
            and geometry.out_width % form.columns.outputs == 0
        )
        if exact:
            return [*statements, stores(False)]
        whole = tirx.all(
            row + index(form.rows.outputs) <= index(geometry.out_height),
            column + index(form.columns.outputs) <= index(geometry.out_width),
        )
        return [*statements, tirx.IfThenElse(whole, stores(False), stores(True))]

    def _store(self, n: Any, row: Any, column: Any, o: Any, register: Any, lanes: int) -> list[Any]:
        main = self.request.group.main
        assert main is not None
        return store_vector(
            self.request.memory,
            self.request.group.result,
            self.request.group.inlined,
            lanes,
            lambda lane: self.geometry.position(n, row, column, o + lane),
            held_lane=lambda lane: [(main.buffer, lambda _: emit.load(register, lane))],
        )

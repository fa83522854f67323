"""Matrix products: dense layers, batched products, 1x1 convolutions, matrix times vector.

    for panels of B:  for row tiles of A:        (or the other way round; shared by threads)
        registers[column][vector];  for k: registers += A[column, k] * B[k, vector];  epilogue, store

The outer loop is over whichever operand is read again less: with panels outside, A is read once a
panel and B once in all; with row tiles outside, the other way round. What fits half of the second
cache level is taken as free to read again. A constant B is packed panel by panel at compile time,
[panel][k][lane], so that the inner loop reads it in order. With one row (M = 1) the tile is one
column of up to eight vectors, which keeps as many sums going as the latency needs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgepack.compiler.operators import TRANSPOSED
from edgepack.compiler.schedules import emit
from edgepack.compiler.schedules.axes import Walk, merge, steps_along, walk_of
from edgepack.compiler.schedules.expressions import flat_index, index, rebuild, same, uses
from edgepack.compiler.schedules.groups import is_product
from edgepack.compiler.schedules.nest import Nest, Packing, Request
from edgepack.compiler.schedules.panels import PackedPanels
from edgepack.compiler.schedules.register_tile import (
    Panel,
    best_vectors,
    make_panels,
    row_tiles,
)
from edgepack.compiler.schedules.stages import shape_of
from edgepack.compiler.schedules.tile_body import Tile
from edgepack.compiler.schedules.values import Values


@dataclass(frozen=True, kw_only=True, eq=False)
class Product:
    """C[batch..., m, n] += A[batch..., m, k...] * B[batch..., k..., n], by positions of main's axes."""

    a: Any
    b: Any
    rows: tuple[int, ...]
    """The axes that make m: only A has them, and every access walks them as one."""
    columns: int
    """The axis n, which only B has."""
    batch: tuple[int, ...]
    constant: bool
    """B is a constant and has no batch axes."""
    step: int
    """Elements of A from one row to the next; 0 where that is no fixed number."""


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
    product = _product(request)
    if product is None:
        return None
    rows = math.prod(main.shape[axis] for axis in product.rows)
    width = main.shape[product.columns]
    depth = math.prod(extent for _, extent in main.reduced)
    registers = request.registers(product.step)
    vectors = best_vectors(rows, 1, width, depth, request.lanes, registers)
    panels = make_panels(width, vectors, request.lanes, padded=product.constant)
    writer = _Writer(request, product, panels)
    return Nest(rule="matmul", statements=writer.nest(rows, depth), packings=tuple(writer.packings))


def _product(request: Request) -> Product | None:
    from tvm import ir

    main = request.group.main
    assert main is not None
    first, second = main.value.b.a, main.value.b.b
    axes = [variable for variable, _ in main.axes]
    extents, fixed = main.shape, len(request.prefix)
    last = max((a for a, extent in enumerate(extents) if extent > 1), default=len(extents) - 1)
    if last < fixed:
        return None
    for a, b in ((first, second), (second, first)):
        if not isinstance(b, ir.TensorLoad):
            continue
        used_a, used_b = _used(request, a, axes), _used(request, b, axes)
        if last in used_a or (last not in used_b and extents[last] > 1):
            continue
        constant = _is_constant(request, b) and not any(
            extents[axis] > 1 for axis in used_b if axis != last
        )
        if not constant and not _contiguous(request, b, axes[last]) and extents[last] > 1:
            continue
        own = [x for x in range(fixed, last) if extents[x] > 1 and x not in used_b]
        rows = _merged_rows(request, a, own)
        batch = tuple(x for x in range(fixed, len(extents)) if x not in rows and x != last)
        return Product(
            a=a,
            b=b,
            rows=rows,
            columns=last,
            batch=batch,
            constant=constant,
            step=_row_step(request, a, rows),
        )
    return None


def _merged_rows(request: Request, a: Any, own: Sequence[int]) -> tuple[int, ...]:
    """The largest run of ``own`` axes that A, the epilogue and the store all walk as one."""
    main, result = request.group.main, request.group.result
    assert main is not None
    variables = [variable for variable, _ in main.axes]
    value = _scalar(request, a, {})
    walks = [walk_of(value, request.memory.index(main.buffer, variables), variables)]
    if result is not main:
        places = [variable for variable, _ in result.axes]
        values = Values(memory=request.memory, inlined=request.group.inlined, looking=True)
        epilogue = values.of_stage(result, places)
        walks.append(walk_of(epilogue, request.memory.index(result.buffer, places), places))
    extents = [extent if axis in own else 1 for axis, extent in enumerate(main.shape)]
    walk = Walk(
        steps=tuple(access for walk in walks for access in walk.steps),
        by_value=tuple(any(flags) for flags in zip(*(w.by_value for w in walks), strict=True)),
    )
    runs_of_axes = merge(extents, walk)
    best = max(
        runs_of_axes,
        key=lambda axes: (math.prod(extents[axis] for axis in axes), axes),
        default=[],
    )
    return tuple(best)


def _row_step(request: Request, a: Any, rows: tuple[int, ...]) -> int:
    from tvm import ir

    main = request.group.main
    assert main is not None
    value = _scalar(request, a, {})
    if not rows or not isinstance(value, ir.TensorLoad):
        return 0
    (step,) = steps_along(value.indices[0], [main.axes[rows[-1]][0]])
    return step or 0


def _scalar(request: Request, operand: Any, axes: Mapping[Any, Any]) -> Any:
    """An operand's element, its axes replaced."""
    values = Values(memory=request.memory, inlined=request.group.inlined)
    return rebuild(operand, axes, lambda buffer, at, _: values.at(buffer, at, True))


def _used(request: Request, operand: Any, axes: Sequence[Any]) -> set[int]:
    """The axes on which an operand depends."""
    value = _scalar(request, operand, {})
    return {position for position, axis in enumerate(axes) if uses(value, axis)}


def _is_constant(request: Request, operand: Any) -> bool:
    """Whether the operand is a constant parameter, indexed by plain axes."""
    from tvm import tirx

    return request.memory.kernel.is_constant(operand.source) and all(
        isinstance(where, tirx.Var) or same(where, 0) for where in operand.indices
    )


def _contiguous(request: Request, operand: Any, axis: Any) -> bool:
    from tvm import ir

    value = _scalar(request, operand, {})
    return isinstance(value, ir.TensorLoad) and steps_along(value.indices[0], [axis]) == (1,)


class _Writer:
    """Writes the loops of one product."""

    def __init__(self, request: Request, product: Product, panels: list[Panel]) -> None:
        main = request.group.main
        assert main is not None
        self.request, self.product, self.panels, self.main = request, product, panels, main
        self.depth = [extent for _, extent in main.reduced]
        self.packings: list[Packing] = []
        self.weights: PackedPanels | None = None
        if product.constant:
            self._pack()

    def _pack(self) -> None:
        """Lay B out as panels, its axes in the order (reduced axes..., n)."""
        b = self.product.b
        wanted = [v for v, _ in self.main.reduced] + [self.main.axes[self.product.columns][0]]
        order = [i for variable in wanted for i, at in enumerate(b.indices) if at.same_as(variable)]
        unit = [i for i in range(len(shape_of(b.source))) if i not in order]
        self.weights = PackedPanels(
            self.request, b.source, [*unit, *order], self.panels, math.prod(self.depth)
        )
        self.packings.append(self.weights.packing)

    def nest(self, rows: int, depth: int) -> Any:
        """All loops; which of panels and row tiles is outside depends on the operands' sizes."""
        batch = [self.main.shape[axis] for axis in self.product.batch]
        width = self.main.shape[self.product.columns]
        cache = self.request.target.l2_bytes // 2
        a_bytes, b_bytes = 4 * rows * depth, 4 * width * depth
        count = sum(panel.count for panel in self.panels)
        panels_outside = a_bytes <= cache or a_bytes * count < b_bytes * max(1, rows // 8)
        tasks = self.request.tasks
        if tasks > 1 and math.prod(batch) >= 4 * tasks:
            return emit.grid(batch, lambda at: self._loops(at, rows, panels_outside, 1), tasks)
        return emit.grid(batch, lambda at: self._loops(at, rows, panels_outside, tasks), 1)

    def _loops(self, batch: list[Any], rows: int, panels_outside: bool, tasks: int) -> Any:
        registers = self.request.registers(self.product.step)
        panels = [(panel, panel.count) for panel in self.panels]
        widest = max(len(panel.vectors) for panel in self.panels)
        tiles = row_tiles(rows, registers.columns(widest))

        def body(panel: Panel, which: Any, tile: tuple[int, int], number: Any) -> list[Any]:
            columns, first = tile
            return self._tile(batch, panel, columns, which, index(first) + number * index(columns))

        if panels_outside:
            return emit.segmented(panels, tiles, body, tasks)
        return emit.segmented(tiles, panels, lambda t, n, p, w: body(p, w, t, n), tasks)

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
        self, batch: list[Any], panel: Panel, columns: int, which: Any, row: Any
    ) -> list[Any]:
        tile = Tile(self.request, columns, panel)
        first = index(panel.start) + which * index(panel.width)

        def term(reduced: list[Any]) -> list[Any]:
            return tile.accumulate(
                lambda column: self._a(batch, row + index(column), reduced),
                lambda offset, lanes: self._b(batch, panel, which, first, reduced, offset, lanes),
            )

        return [
            *tile.start(),
            emit.grid(self.depth, term, 1),
            *tile.finish(
                lambda column, offset: self._position(batch, row + index(column), first + offset)
            ),
        ]

    def _operand(self, operand: Any, position: list[Any], reduced: list[Any]) -> Any:
        axes = {v: p for (v, _), p in zip(self.main.axes, position, strict=True)}
        axes |= {v: p for (v, _), p in zip(self.main.reduced, reduced, strict=True)}
        return _scalar(self.request, operand, axes)

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
        position = self._position(batch, index(0), first + index(offset))
        scalar = self._operand(self.product.b, position, reduced)
        return emit.widened(scalar, lanes)

"""A's rows copied side by side, with a line between two of them, before a matrix product.

    for rows of A (shared by threads):  copy[row][k] = A[row, k]

A register tile reads several rows of A at once. Where they lie a large power of two apart they drive one
another out of the first cache level, and where they are pixels of short rows of an image, some left out
by a stride, they do not fill a tile. The copy costs one pass over A; the product goes over it once for
each panel of B, of which a narrow B has few: estimates of both say whether it pays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from edgepack.compiler.schedules import emit
from edgepack.compiler.schedules.axes import steps_along
from edgepack.compiler.schedules.expressions import index
from edgepack.compiler.schedules.nest import Request
from edgepack.compiler.schedules.product import Product, element_of, merged_rows, used_axes
from edgepack.compiler.schedules.register_tile import best_panels
from edgepack.compiler.schedules.values import LINE

_COPIED = 3.0
"""Cycles to copy a vector of A, which comes from the second cache level or from behind it."""
_LEAST_GAIN = 0.9
"""The time with the copy, as a part of that without, up to which it is worth its memory."""
_SHORT = 12
"""Rows that can be walked as one, at most, for a copy to be worth it: fewer than a tile or two."""
_FEW_FOR_B = 16
"""The same where B is not in the second cache level: each such run of rows reads all of it anew."""
_LEAST_WIDTH = 128
"""Of B, for rows to be copied only to fill tiles: with fewer columns, that costs more than a twentieth of
the product."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Spaced:
    """``product`` reads the copy in place of A; ``statements`` make it in ``buffer``."""

    product: Product
    statements: Any
    buffer: Any


def spaced(request: Request, product: Product) -> Spaced | None:
    """The product of a copy of A; None where A is better read where it is."""
    from tvm import ir, tirx

    main = request.group.main
    assert main is not None
    axes = [variable for variable, _ in main.axes]
    deep = [(variable, extent) for variable, extent in main.reduced if extent > 1]
    if request.prefix or len(deep) != 1:
        return None
    ((term, depth),) = deep
    own = [x for x in used_axes(request, product.a, axes) if main.shape[x] > 1]
    read = element_of(request, product.a, {})
    if not isinstance(read, ir.TensorLoad) or steps_along(read.indices[0], [term]) != (1,):
        return None
    if request.memory.kernel.is_constant(product.a.source):
        return None

    extents = [main.shape[x] for x in own]
    copy = tirx.decl_buffer((*extents, depth + LINE), "float32", "rows")
    a = tirx.BufferLoad(copy, [*(axes[x] for x in own), term])
    rows = merged_rows(request, a, [x for x in own if x in (*product.rows, *product.batch)])
    batch = tuple(x for x in range(len(axes)) if x not in rows and x != product.columns)
    new = replace(product, a=a, rows=rows, batch=batch, step=depth + LINE)
    longer = _is_longer(request, product, new, depth)
    if not longer and not _drive_one_another_out(request, product, new, depth):
        return None

    origin = {variable: index(0) for variable, _ in (*main.axes, *main.reduced)}

    def row(at: list[Any]) -> list[Any]:
        there = origin | {axes[x]: where for x, where in zip(own, at, strict=True)}

        def part(start: Any, lanes: int) -> Any:
            place = request.memory.index(copy, [*at, start])
            value = emit.widened(element_of(request, product.a, there | {term: start}), lanes)
            return emit.store(request.memory.of(copy), emit.lanes_of(place, lanes), value)

        return emit.in_parts(depth, request.lanes, part)

    statements = emit.grid(extents, row, request.tasks)
    return Spaced(product=new, statements=statements, buffer=request.memory.of(copy))


def _drive_one_another_out(request: Request, old: Product, new: Product, depth: int) -> bool:
    """Whether the first cache level holds so few of A's rows that the copy and its product take less time."""
    main = request.group.main
    assert main is not None
    rows, width = math.prod(main.shape[axis] for axis in old.rows), main.shape[old.columns]
    before, after = (
        best_panels(rows, 1, width, depth, request.lanes, request.registers(p.step), p.apart)[0]
        for p in (old, new)
    )
    return after + rows * depth / request.lanes * _COPIED < _LEAST_GAIN * before


def _is_longer(request: Request, old: Product, new: Product, depth: int) -> bool:
    """Whether the rows that can be walked as one become more, where they are few."""
    main = request.group.main
    assert main is not None
    before, after = (math.prod(main.shape[axis] for axis in each.rows) for each in (old, new))
    b = 4 * main.shape[new.columns] * depth
    few = _FEW_FOR_B if b > request.target.l2_bytes // 2 else _SHORT
    is_wide = main.shape[new.columns] >= _LEAST_WIDTH
    return is_wide and new.constant and before < min(few, after)

"""Which of a sum's two factors are A and B of a matrix product, and which axes are rows and columns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgepack.compiler.schedules.axes import Walk, merge, steps_along, walk_of
from edgepack.compiler.schedules.expressions import rebuild, same, uses
from edgepack.compiler.schedules.nest import Request
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
    apart: int
    """Elements of B from one term to the next; 0 where that is no fixed number, or B is a constant."""


def product_of(request: Request) -> Product | None:
    """The product that the main stage is; None if it is none, or neither factor is read in order."""
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
        used_a, used_b = used_axes(request, a, axes), used_axes(request, b, axes)
        if last in used_a or (last not in used_b and extents[last] > 1):
            continue
        constant = _is_constant(request, b) and not any(
            extents[axis] > 1 for axis in used_b if axis != last
        )
        if not constant and not _contiguous(request, b, axes[last]) and extents[last] > 1:
            continue
        own = [x for x in range(fixed, last) if extents[x] > 1 and x not in used_b]
        rows = merged_rows(request, a, own)
        batch = tuple(x for x in range(fixed, len(extents)) if x not in rows and x != last)
        return Product(
            a=a,
            b=b,
            rows=rows,
            columns=last,
            batch=batch,
            constant=constant,
            step=_step(request, a, main.axes[rows[-1]][0]) if rows else 0,
            apart=0 if constant else _step(request, b, main.reduced[-1][0]),
        )
    return None


def merged_rows(request: Request, a: Any, own: Sequence[int]) -> tuple[int, ...]:
    """The largest run of ``own`` axes that A, the epilogue and the store all walk as one."""
    main, result = request.group.main, request.group.result
    assert main is not None
    variables = [variable for variable, _ in main.axes]
    value = element_of(request, a, {})
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


def _step(request: Request, operand: Any, axis: Any) -> int:
    """Elements of an operand from one step along ``axis`` to the next; 0 if that is no fixed number."""
    from tvm import ir

    value = element_of(request, operand, {})
    if not isinstance(value, ir.TensorLoad):
        return 0
    (step,) = steps_along(value.indices[0], [axis])
    return step or 0


def element_of(request: Request, operand: Any, axes: Mapping[Any, Any]) -> Any:
    """An operand's element, its axes replaced."""
    values = Values(memory=request.memory, inlined=request.group.inlined)
    return rebuild(operand, axes, lambda buffer, at, _: values.at(buffer, at, True))


def used_axes(request: Request, operand: Any, axes: Sequence[Any]) -> set[int]:
    """The axes on which an operand depends."""
    value = element_of(request, operand, {})
    return {position for position, axis in enumerate(axes) if uses(value, axis)}


def _is_constant(request: Request, operand: Any) -> bool:
    """Whether the operand is a constant parameter, indexed by plain axes."""
    from tvm import tirx

    return request.memory.kernel.is_constant(operand.source) and all(
        isinstance(where, tirx.Var) or same(where, 0) for where in operand.indices
    )


def _contiguous(request: Request, operand: Any, axis: Any) -> bool:
    from tvm import ir

    value = element_of(request, operand, {})
    return isinstance(value, ir.TensorLoad) and steps_along(value.indices[0], [axis]) == (1,)

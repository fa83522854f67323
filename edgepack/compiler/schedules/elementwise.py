"""Elementwise chains, broadcasts and movements: transpose, slice, pad, concat, gather, resize.

    for outer axes (shared by threads):  for vectors of the last axis:  out[vector] = chain(...)

Axes that every access walks in memory order become one, so that a chain over [7, 7, 3] is one run
of 147 elements. What does not fill a vector at the end is one shorter vector, not a scalar loop.
Where a condition compares the last axis with constants (concat, pad), its range is cut at them, and
each part is a loop without the condition. A transposition goes block by block (transposition.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any

from edgepack.compiler.schedules import emit, transposition
from edgepack.compiler.schedules.axes import merge, place, walk_of
from edgepack.compiler.schedules.expressions import has_functions, index, visit
from edgepack.compiler.schedules.nest import Nest, Request
from edgepack.compiler.schedules.values import Values, store_vector

_SHORT_BITS = 128
"""Of a vector register: cores with such look less far ahead."""
_REGISTERS_FOR_THREE = 32
"""They hold the constants and what three chains work on."""


def schedule(request: Request) -> Nest | None:
    """Take any group without a reduction."""
    group, stage = request.group, request.group.result
    if group.main is not None:
        return None
    count = len(request.prefix)
    variables = [variable for variable, _ in stage.axes]
    everywhere = Values(memory=request.memory, inlined=group.inlined, looking=True)
    value = everywhere.of_stage(stage, variables)
    walk = walk_of(value, request.memory.index(stage.buffer, variables), variables)
    extents = [1] * count + list(stage.shape[count:])
    merged = merge(extents, walk)
    lengths = [math.prod(extents[axis] for axis in axes) for axes in merged] or [1]
    last = merged[-1][-1] if merged else len(extents) - 1
    cuts = _cuts(value, variables[last], lengths[-1]) if merged else [0, 1]

    def where(position: list[Any]) -> list[Any]:
        found = place(merged, len(extents), position) if merged else [index(0)] * len(extents)
        return [*request.prefix, *found[count:]]

    def row(outer: list[Any]) -> list[Any]:
        return [
            _run(request, lambda at: where([*outer, at]), start, stop)
            for start, stop in pairwise(cuts)
        ]

    across = transposition.across(walk, merged)
    if across is not None and len(cuts) == 2:
        loops = transposition.Transposition(lengths=lengths, across=across, where=where)
        statements = transposition.nest(request, loops, value, walk, merged)
        return Nest(rule="elementwise", statements=statements)
    if len(lengths) == 1 and request.tasks > 1:
        return Nest(rule="elementwise", statements=_shared_run(request, where, cuts))
    return Nest(rule="elementwise", statements=emit.grid(lengths[:-1], row, request.tasks))


def _run(request: Request, where: Any, start: int, stop: int) -> list[Any]:
    """The elements ``start`` to ``stop`` of the innermost loop, in vectors, some of them at once."""

    def part(first: Any, length: int) -> list[Any]:
        if length == several:
            return _vector(request, where, start, first, length)
        return emit.in_parts(
            length,
            request.lanes,
            lambda offset, lanes: _vector(request, where, start, first + offset, lanes),
        )

    several = request.lanes * _at_once(request)
    return emit.in_parts(stop - start, several, part)


def _at_once(request: Request) -> int:
    """Vectors whose functions are computed side by side.

    A function is a long chain, of which a core finds few in the 128 instructions that it looks ahead (a
    Cortex-A72 and A76). For a core that issues in order LLVM puts iterations side by side itself, those
    of AVX-512 look far enough ahead, and 16 registers do not hold three chains.
    """
    target, group = request.target, request.group
    if not any(has_functions(stage.value) for stage in (group.result, *group.inlined)):
        return 1
    is_short = target.vector_bits <= _SHORT_BITS and target.vector_registers >= _REGISTERS_FOR_THREE
    return 3 if is_short and target.issue == "out-of-order" else 1


def _vector(request: Request, where: Any, start: int, offset: Any, lanes: int) -> list[Any]:
    return store_vector(
        request.memory,
        request.group.result,
        request.group.inlined,
        lanes,
        lambda lane: where(index(start) + offset + lane),
    )


def _shared_run(request: Request, where: Any, cuts: Sequence[int]) -> list[Any]:
    """One long run, in blocks that threads share."""
    statements = []
    for start, stop in pairwise(cuts):
        block = request.lanes * 64
        whole = (stop - start) // block

        part = partial(_part, request, where, start, block)
        if whole:
            statements.append(emit.grid([whole], part, request.tasks))
        if start + whole * block < stop:
            first = start + whole * block
            statements.extend(_run(request, lambda at: where([at]), first, stop))
    return statements


def _part(request: Request, where: Any, start: int, block: int, position: list[Any]) -> list[Any]:
    base = position[0] * index(block)
    return _run(request, lambda at: where([base + at]), start, start + block)


def _cuts(value: Any, variable: Any, length: int) -> list[int]:
    """Where conditions on ``variable`` change within ``length``: its ends, and points between."""
    from tvm import sym, tirx

    points = {0, length}
    for node in visit(value):
        if not isinstance(node, (tirx.LT, tirx.LE, tirx.GT, tirx.GE)):
            continue
        parts = sym.detect_linear_equation(node.a - node.b, [variable])
        if len(parts) != 2 or not all(isinstance(part, tirx.IntImm) for part in parts):
            continue
        step, offset = int(parts[0].value), int(parts[1].value)
        if abs(step) != 1:
            continue
        at = -offset // step
        inclusive = isinstance(node, tirx.LE) == (step > 0)
        if isinstance(node, (tirx.GT, tirx.GE)):
            inclusive = isinstance(node, tirx.GT) == (step > 0)
        point = at + 1 if inclusive else at
        if 0 < point < length:
            points.add(point)
    ordered = sorted(points)
    return ordered if len(ordered) <= 1 + _MOST_PARTS else [0, length]


_MOST_PARTS = 256
"""With more, writing them out would take longer than what else is compiled."""

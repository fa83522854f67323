"""Loops, buffers and stores: the few TIR statements that rules write."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from edgepack.compiler.schedules.expressions import index

Body = Callable[[Any], Any]


def sequence(*statements: Any) -> Any:
    """One statement of several; lists are flattened and None is left out."""
    from tvm import tirx

    flat: list[Any] = []
    stack = list(reversed(statements))
    while stack:
        item = stack.pop()
        if isinstance(item, (list, tuple)):
            stack.extend(reversed(item))
        elif item is not None:
            flat.append(item)
    if not flat:
        return tirx.Evaluate(tirx.IntImm("int32", 0))
    return flat[0] if len(flat) == 1 else tirx.SeqStmt(flat)


def serial(extent: Any, body: Body, name: str = "i") -> Any:
    """A loop; one of a single iteration is only its body."""
    if isinstance(extent, int):
        if extent == 1:
            return sequence(body(index(0)))
        extent = index(extent)
    return _for(extent, body, "SERIAL", name)


def between(first: Any, stop: Any, body: Body) -> Any:
    """A loop from ``first`` to ``stop``, which need not be constants."""
    return _for(stop - first, lambda i: body(first + i), "SERIAL", "i")


def in_parts(length: int, part: int, body: Callable[[Any, int], Any]) -> list[Any]:
    """``body(start, size)`` for ``length`` elements: a loop over whole parts, then a shorter one."""
    whole, rest = divmod(length, part)
    statements = []
    if whole:
        statements.append(serial(whole, lambda i: body(i * index(part), part)))
    if rest:
        statements.append(sequence(body(index(whole * part), rest)))
    return statements


def in_parts_between(first: Any, stop: Any, part: int, body: Callable[[Any, int], Any]) -> Any:
    """As in_parts(), from ``first`` to ``stop``, which need not be constants; the rest goes one by one."""
    from tvm import tirx

    if part == 1:
        return between(first, stop, lambda i: body(i, 1))
    statements: list[Any] = []
    whole = bind(tirx.FloorDiv(stop - first, index(part)), "whole", statements)
    statements.append(
        between(index(0), whole, lambda i: body(first + i * index(part), part)),
    )
    statements.append(between(first + whole * index(part), stop, lambda i: body(i, 1)))
    return sequence(statements)


def vectorized(lanes: int, body: Body) -> Any:
    """A loop that becomes vector instructions of ``lanes`` elements, whatever their number is."""
    if lanes == 1:
        return sequence(body(index(0)))
    return _for(index(lanes), body, "VECTORIZED", "lane")


def parallel(extent: int, body: Body) -> Any:
    """A loop whose iterations threads share, in contiguous parts of equal size."""
    return _for(index(extent), body, "PARALLEL", "task")


def grid(extents: Sequence[int], body: Callable[[list[Any]], Any], tasks: int) -> Any:
    """Nested loops; where ``tasks`` is above 1, the outermost are shared by threads.

    As many of the outer loops are made one as it takes to have four iterations for each of
    ``tasks`` threads, so that parts of equal size are also about equal work.
    """
    if tasks <= 1:
        return _nested(list(extents), [], body)
    outer = 1
    while outer < len(extents) and math.prod(extents[:outer]) < 4 * tasks:
        outer += 1
    total = math.prod(extents[:outer])
    if total == 1:
        return _nested(list(extents), [], body)

    def shared(task: Any) -> Any:
        return _nested(list(extents[outer:]), position_of(extents[:outer], task), body)

    return parallel(total, shared)


def position_of(extents: Sequence[int], flat: Any) -> list[Any]:
    """The position along each of ``extents`` of the element that is ``flat`` in memory order."""
    from tvm import tirx

    first, *others = extents
    if first == 1 and others:
        return [index(0), *position_of(others, flat)]
    position, remaining = [], flat
    for extent in reversed(others):
        position.append(tirx.FloorMod(remaining, index(extent)))
        remaining = tirx.FloorDiv(remaining, index(extent))
    return [remaining, *reversed(position)]


def _nested(extents: list[int], position: list[Any], body: Callable[[list[Any]], Any]) -> Any:
    if not extents:
        return sequence(body(position))
    return serial(extents[0], lambda i: _nested(extents[1:], [*position, i], body))


def _for(extent: Any, body: Body, kind: str, name: str) -> Any:
    from tvm import tirx

    variable = tirx.Var(name, "int64")
    return tirx.For(
        variable, index(0), extent, getattr(tirx.ForKind, kind), sequence(body(variable))
    )


def registers(lanes: int, dtype: str, name: str) -> Any:
    """A vector that lives in a register: a small buffer that LLVM promotes.

    Not of scope "local", for which TVM's CPU code asks a runtime for memory.
    """
    from tvm import tirx

    return tirx.decl_buffer((lanes,), dtype, name)


def allocate(buffers: Sequence[Any]) -> list[Any]:
    """The statements that make ``buffers``; they hold in what follows them."""
    from tvm import tirx

    return [tirx.AllocBuffer(buffer) for buffer in buffers]


def lanes_of(start: Any, lanes: int) -> Any:
    """The indices ``start`` to ``start + lanes``."""
    from tvm import tirx

    return start if lanes == 1 else tirx.Ramp(start, index(1), lanes)


def widened(scalar: Any, lanes: int) -> Any:
    """The load of one element of a dense vector as a load of ``lanes`` elements from there on."""
    return load(scalar.source, lanes_of(scalar.indices[0], lanes))


def splat(value: Any, lanes: int) -> Any:
    """``value`` in every lane."""
    from tvm import tirx

    return value if lanes == 1 else tirx.Broadcast(value, lanes)


def shuffled(vector: Any, count: int, lanes: Sequence[int]) -> Any:
    """``lanes`` of ``vector``, which has ``count``, in that order."""
    if count == 1:
        return splat(vector, len(lanes))
    several = -(-len(lanes) // count)  # TVM makes no vector longer than what it is made of
    return shuffle([vector] * several, lanes)


def shuffle(vectors: Sequence[Any], lanes: Sequence[int]) -> Any:
    """``lanes``, in that order, of ``vectors`` one after the other; not more than they have."""
    from tvm import tirx

    return tirx.Shuffle(list(vectors), [tirx.IntImm("int32", lane) for lane in lanes])


def load(buffer: Any, position: Any) -> Any:
    """An element, or several where ``position`` has lanes."""
    from tvm import tirx

    return tirx.BufferLoad(buffer, [position])


def store(buffer: Any, position: Any, value: Any) -> Any:
    """Write an element, or several where ``position`` has lanes."""
    from tvm import tirx

    return tirx.BufferStore(buffer, value, [position])


def prefetch(buffer: Any, position: Any, level: int, to_write: bool = False) -> Any:
    """Ask for the cache line of an element, to be read or written, into a level of the cache (1 or 2)."""
    from tvm import tirx

    address = tirx.address_of(load(buffer, position))
    arguments = [tirx.IntImm("int32", value) for value in (int(to_write), 4 - level, 1)]
    return tirx.Evaluate(tirx.call_intrin("void", "tirx.prefetch", address, *arguments))


def bind(value: Any, name: str, statements: list[Any]) -> Any:
    """Name ``value`` for what follows, so that it is computed once."""
    from tvm import tirx

    variable = tirx.Var(name, value.ty)
    statements.append(tirx.Bind(variable, value))
    return variable


def shares(total: int, tasks: int, body: Callable[[Any, Any], Any]) -> Any:
    """A loop over ``total`` whose parts threads share; ``body(i, number of the part)``."""
    if tasks <= 1:
        return serial(total, lambda i: body(i, index(0)))

    def part(task: Any) -> Any:
        return between(*share(total, tasks, task), lambda i: body(i, task))

    return parallel(tasks, part)


def share(total: int, tasks: int, task: Any) -> tuple[Any, Any]:
    """Where, of ``total``, the part of ``task`` begins and ends."""
    return share_start(total, tasks, task), share_start(total, tasks, task + index(1))


def share_start(total: int, tasks: int, task: Any) -> Any:
    """Where, of ``total``, the part of ``task`` begins."""
    from tvm import tirx

    return tirx.FloorDiv(task * index(total), index(tasks))


Segments = Sequence[tuple[Any, int]]
"""A loop whose body differs from part to part: (kind, iterations), one part after another."""


def one_by_one(segments: Segments, body: Callable[[Any, Any], Any]) -> list[Any]:
    """A loop for each segment, in order."""
    return [serial(count, partial(body, kind)) for kind, count in segments]


def segmented(
    outer: Segments,
    inner: Segments,
    body: Callable[[Any, Any, Any, Any], Any],
    tasks: int,
) -> Any:
    """Two nested loops over segments; ``body(kind, i, inner kind, j)``.

    One thread runs a loop per segment. Threads share one loop over all pairs (over the outer loop
    alone, where that is long enough), whose body chooses the segment: one launch, and even parts.
    """
    outer_total = sum(count for _, count in outer)
    inner_total = sum(count for _, count in inner)
    if tasks <= 1 or outer_total * inner_total == 1:
        return sequence(one_by_one(outer, lambda o, i: one_by_one(inner, partial(body, o, i))))
    if outer_total >= 4 * tasks:
        return parallel(
            outer_total,
            lambda task: choose(
                outer,
                task,
                lambda o, i: one_by_one(inner, partial(body, o, i)),
            ),
        )

    def shared(task: Any) -> Any:
        from tvm import tirx

        first = tirx.FloorDiv(task, index(inner_total))
        second = tirx.FloorMod(task, index(inner_total))
        return choose(
            outer,
            first,
            lambda o, i: choose(inner, second, partial(body, o, i)),
        )

    return parallel(outer_total * inner_total, shared)


def segmented_inside(
    outer: Segments, inner: Segments, body: Callable[[Any, Any, Any, Any], Any]
) -> Any:
    """As segmented(), but each thread goes through the whole outer loop with its part of the inner one.

    One launch too: threads do not wait for one another between two iterations of the outer loop. A
    single thread runs both loops as they stand.
    """
    from tvm import tirx

    total = sum(count for _, count in inner)

    def whole(o: Any, i: Any) -> Any:
        return parallel(total, lambda task: choose(inner, task, partial(body, o, i)))

    loops = sequence(one_by_one(outer, whole))
    return tirx.AttrStmt(index(0), "pragma_parallel_launch_point", index(1), loops)


def choose(segments: Segments, position: Any, body: Callable[[Any, Any], Any]) -> Any:
    """The body of the segment in which ``position`` lies, with what is left of it."""
    from tvm import tirx

    (kind, count), *others = segments
    if not others:
        return sequence(body(kind, position))
    return tirx.IfThenElse(
        position < index(count),
        sequence(body(kind, position)),
        choose(others, position - index(count), body),
    )

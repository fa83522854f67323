"""Sums, means, maxima, pooling, and what softmax and the norms are made of.

Where neighbouring results are neighbours in memory (pooling and means in channels-last):

    for outer...:  for vectors of the last axis:
        registers = init;  for reduced...: registers ⊕= term;   epilogue, store

of which threads share the outer loops, or, with a single row of results, the terms: each sums up those of
a part, as of the rows of an image that it has written itself, and the sums of all are put together then.

Where the reduction itself runs along memory (softmax, layer norm):

    for outer...:  registers = init
        for chunks of the reduced axis: registers ⊕= term;      then the lanes are combined

Several registers are used at once, since one would wait for its own latency. Partial results also
keep small terms that one long running sum would lose (Higham, "Accuracy and Stability of Numerical
Algorithms", section 4.2).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from edgepack.compiler.schedules import emit
from edgepack.compiler.schedules.axes import Walk, merge, place, walk_of
from edgepack.compiler.schedules.expressions import index, rebuild, self_update
from edgepack.compiler.schedules.nest import Nest, Request
from edgepack.compiler.schedules.reduction_block import (
    Block,
    combined,
    finished,
    take_into,
    term_of,
    widths_of,
)
from edgepack.compiler.schedules.values import Rows, Values

_CHAINS = 4
"""Registers that one reduction keeps going: latency 4, one or two operations a cycle."""


def schedule(request: Request) -> Nest | None:
    """Take a reduction by +, *, max or min, with its epilogue."""
    main = request.group.main
    if main is None or self_update(main.buffer, main.value) is None:
        return None
    walk = _walk(request)
    spatial = len(main.axes)
    last = max((a for a, extent in enumerate(main.shape) if extent > 1), default=None)
    free = last if last is not None and last >= len(request.prefix) else None
    contiguous = [axis for axis in range(len(main.axes) + len(main.reduced)) if _unit(walk, axis)]
    along = [axis for axis in contiguous if axis >= spatial]
    # A row's mean lies beside the next row's, but the elements that it is taken from may not.
    apart = min((_gathered(walk, axis) for axis in along), default=len(walk.steps))
    if free is not None and free in contiguous and _gathered(walk, free) <= apart:
        return _across(request, free)
    return _along(request, walk) if along or free is None else _across(request, free)


def _unit(walk: Walk, axis: int) -> bool:
    """Whether some load walks memory element by element along ``axis``."""
    return any(access[axis] == 1 for access in walk.steps[1:])


def _gathered(walk: Walk, axis: int) -> int:
    """Loads whose elements along ``axis`` lie apart."""
    return sum(access[axis] not in (0, 1) for access in walk.steps[1:])


def _walk(request: Request) -> Walk:
    main = request.group.main
    assert main is not None
    update = self_update(main.buffer, main.value)
    assert update is not None
    variables = [variable for variable, _ in (*main.axes, *main.reduced)]
    values = Values(memory=request.memory, inlined=request.group.inlined, looking=True)
    term = rebuild(update[1], {}, values.at, replacing=False)
    stored = request.memory.index(main.buffer, [variable for variable, _ in main.axes])
    return walk_of(term, stored, variables)


def _across(request: Request, last: int) -> Nest:
    """Lanes are neighbouring results."""
    main = request.group.main
    assert main is not None
    count, lanes = len(request.prefix), request.lanes
    outer = [axis for axis in range(count, len(main.shape)) if axis != last]
    length = main.shape[last]

    def where(position: Sequence[Any], at: Any) -> list[Any]:
        found = [*request.prefix, *([index(0)] * (len(main.shape) - count))]
        for axis, value in zip(outer, position, strict=True):
            found[axis] = value
        found[last] = at
        return found

    def blocks(position: Sequence[Any], body: Callable[[Block], list[Any]]) -> list[Any]:
        return emit.in_parts(
            length,
            lanes * _CHAINS,
            lambda start, size: body(
                Block(request, lambda at: where(position, at), start, widths_of(size, lanes))
            ),
        )

    extents = [main.shape[axis] for axis in outer]
    if math.prod(extents) == 1 and _are_terms_shared(request):
        return _in_shares(request, partial(blocks, [index(0)] * len(outer)), length)
    return Nest(
        rule="reduction",
        statements=emit.grid(
            extents, lambda position: blocks(position, Block.whole), request.tasks
        ),
    )


def _are_terms_shared(request: Request) -> bool:
    """Whether each thread takes a part of the terms, as of the rows of an image that it has written.

    A sum along one axis stays in order, as other runtimes have it: where a network takes the variance as
    the mean of squares less the square of the mean, four digits of it can be rounding (magika's).
    """
    from tvm import tirx

    main = request.group.main
    assert main is not None
    extents = [extent for _, extent in main.reduced if extent > 1]
    is_sum = not isinstance(main.value, (tirx.Max, tirx.Min))
    if len(extents) < 1 + is_sum or str(main.buffer.dtype) != "float32":
        return False
    return extents[0] >= request.tasks > 1


def _in_shares(
    request: Request, blocks: Callable[[Callable[[Block], list[Any]]], list[Any]], length: int
) -> Nest:
    """A row of ``length`` results: sums of a part of the terms for each thread, then those together."""
    from tvm import tirx

    main, tasks = request.group.main, request.tasks
    assert main is not None
    extents = [extent for _, extent in main.reduced]
    split = next(axis for axis, extent in enumerate(extents) if extent > 1)
    room = partial(Rows, slots=tasks, extents=(length,))
    kept = tirx.decl_buffer((room(slot=index(0)).elements,), main.buffer.dtype, "partial_sums")

    def place(task: Any, at: Any) -> Any:
        return room(slot=task).index([at])

    def part(task: Any) -> list[Any]:
        def of_block(block: Block) -> list[Any]:
            some = partial(emit.between, *emit.share(extents[split], tasks, task))
            return [
                *block.begin(),
                *block.terms([index(0)] * split, extents[split:], some),
                *block.each(
                    lambda register, at, lane: emit.store(
                        kept, place(task, at), emit.load(register, lane)
                    )
                ),
            ]

        return blocks(of_block)

    def together(block: Block) -> list[Any]:
        def one(task: Any) -> list[Any]:
            return block.combine(lambda at: emit.load(kept, place(task, at)))

        return [*block.begin(), emit.serial(tasks, one), *block.finish()]

    return Nest(
        rule="reduction",
        statements=emit.sequence(emit.parallel(tasks, part), blocks(together)),
        workspaces=(kept,),
    )


def _along(request: Request, walk: Walk) -> Nest:
    """Lanes are neighbouring terms of one result."""
    main = request.group.main
    assert main is not None
    spatial, count = len(main.axes), len(request.prefix)
    extents = [extent for _, extent in main.reduced]
    reduced_walk = Walk(
        steps=tuple(access[spatial:] for access in walk.steps[1:]),
        by_value=walk.by_value[spatial:],
    )
    merged = merge(extents, reduced_walk)
    lengths = [math.prod(extents[axis] for axis in axes) for axes in merged]
    innermost = lengths[-1] if lengths else 1

    def one(position: list[Any]) -> list[Any]:
        where = [*request.prefix, *position]

        def term(outer: Sequence[Any], at: Any) -> Any:
            found = (
                place(merged, len(extents), [*outer, at]) if merged else [index(0)] * len(extents)
            )
            return term_of(request, where, found)

        return _row(request, where, term, lengths[:-1], innermost)

    return Nest(
        rule="reduction", statements=emit.grid(list(main.shape[count:]), one, request.tasks)
    )


def _row(
    request: Request, where: list[Any], term: Any, outer: Sequence[int], length: int
) -> list[Any]:
    """One result: chunks of several registers, then single registers, then a shorter one."""
    main = request.group.main
    assert main is not None
    dtype = main.buffer.dtype
    lanes = min(request.lanes, length)
    chains = max(1, min(_CHAINS, length // lanes))
    sums = [emit.registers(lanes, dtype, "partial") for _ in range(chains)]
    total = emit.registers(1, dtype, "total")

    def add(register: Any, width: int, position: Sequence[Any], start: Any) -> Any:
        return emit.vectorized(
            width,
            lambda lane: emit.store(
                register,
                lane,
                combined(request, emit.load(register, lane), term(position, start + lane)),
            ),
        )

    def run(position: list[Any]) -> list[Any]:
        block = lanes * chains
        whole, done = length // block, length // block * block
        statements = [
            emit.serial(
                whole,
                lambda i: [
                    add(register, lanes, position, i * index(block) + index(k * lanes))
                    for k, register in enumerate(sums)
                ],
            )
        ]
        for k, width in enumerate(widths_of(length - done, lanes)):
            statements.append(add(sums[k], width, position, index(done + k * lanes)))
        return statements

    statements = emit.allocate([*sums, total])
    statements += [_fill(register, lanes, main.init) for register in sums]
    statements.append(emit.grid(list(outer), run, 1))
    statements += [take_into(request, sums[0], index(0), register, lanes) for register in sums[1:]]
    statements += _combine_lanes(request, sums[0], total, lanes)
    return [*statements, *finished(request, lambda _: where, index(0), total, 1)]


def _combine_lanes(request: Request, register: Any, total: Any, lanes: int) -> list[Any]:
    """All lanes of ``register`` into one: by halves, then one after the other."""
    statements: list[Any] = []
    while lanes > 2 and lanes % 2 == 0:
        lanes //= 2
        statements.append(take_into(request, register, index(lanes), register, lanes))
    value = emit.load(register, index(0))
    for lane in range(1, lanes):
        value = combined(request, value, emit.load(register, index(lane)))
    return [*statements, emit.store(total, index(0), value)]


def _fill(register: Any, lanes: int, value: Any) -> Any:
    return emit.vectorized(lanes, lambda lane: emit.store(register, lane, value))

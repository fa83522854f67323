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
from edgepack.compiler.schedules.values import Rows, Values, store_vector

_CHAINS = 4
"""Registers that one reduction keeps going: latency 4, one or two operations a cycle."""
_FEW_TERMS = 64
"""Added up one after another, equal terms are all rounded the same way, which for the pixels of an image
can cost four digits. So many lose two of eight at most."""
_MOST_IN_ORDER = 4096
"""Along a single axis: as other runtimes have it, so that networks get the digits that they were made with
(see _are_terms_shared)."""


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


def _term(request: Request, position: Sequence[Any], reduced: Sequence[Any]) -> Any:
    """The reduction's term at a position of its axes and of its reduced axes."""
    main = request.group.main
    assert main is not None
    update = self_update(main.buffer, main.value)
    assert update is not None
    values = Values(memory=request.memory, inlined=request.group.inlined)
    axes = {v: p for (v, _), p in zip(main.axes, position, strict=True)}
    axes |= {v: p for (v, _), p in zip(main.reduced, reduced, strict=True)}
    return rebuild(update[1], axes, lambda b, i, g: values.at(b, i, True))


def _combine(request: Request, left: Any, right: Any) -> Any:
    main = request.group.main
    assert main is not None
    return type(main.value)(left, right)


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

    def blocks(position: Sequence[Any], body: Callable[[_Block], list[Any]]) -> list[Any]:
        return emit.in_parts(
            length,
            lanes * _CHAINS,
            lambda start, size: body(
                _Block(request, lambda at: where(position, at), start, _widths(size, lanes))
            ),
        )

    extents = [main.shape[axis] for axis in outer]
    if math.prod(extents) == 1 and _are_terms_shared(request):
        return _in_shares(request, partial(blocks, [index(0)] * len(outer)), length)
    return Nest(
        rule="reduction",
        statements=emit.grid(
            extents, lambda position: blocks(position, _Block.whole), request.tasks
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
    request: Request, blocks: Callable[[Callable[[_Block], list[Any]]], list[Any]], length: int
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
        def of_block(block: _Block) -> list[Any]:
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

    def together(block: _Block) -> list[Any]:
        def one(task: Any) -> list[Any]:
            return block.combine(lambda at: emit.load(kept, place(task, at)))

        return [*block.begin(), emit.serial(tasks, one), *block.finish()]

    return Nest(
        rule="reduction",
        statements=emit.sequence(emit.parallel(tasks, part), blocks(together)),
        workspaces=(kept,),
    )


def _widths(length: int, lanes: int) -> list[int]:
    """``length`` elements as whole vectors and one shorter."""
    return [lanes] * (length // lanes) + ([length % lanes] if length % lanes else [])


class _Block:
    """Neighbouring results from ``start`` on, in a register for each of ``widths``."""

    def __init__(
        self, request: Request, where: Callable[[Any], Any], start: Any, widths: Sequence[int]
    ) -> None:
        main = request.group.main
        assert main is not None
        self.request, self.where, self.main = request, where, main
        self.widths = widths
        self.registers = [emit.registers(w, main.buffer.dtype, "partial") for w in widths]
        self.starts = [start + index(sum(widths[:i])) for i in range(len(widths))]

    def whole(self) -> list[Any]:
        """All terms, the epilogue and the store."""
        extents = [extent for _, extent in self.main.reduced]
        return [*self.begin(), *self.terms([], extents), *self.finish()]

    def terms(
        self,
        position: list[Any],
        extents: Sequence[int],
        loop: Callable[[emit.Body], Any] | None = None,
    ) -> list[Any]:
        """Take all terms into every register, at ``position`` of the reduced axes before ``extents``.

        ``loop`` goes along the first of ``extents``, if not all of it is to be taken.
        """
        first, *others = extents
        loop = loop or partial(emit.serial, first)
        if math.prod(others) > 1 and self._is_long(math.prod(extents), _FEW_TERMS):
            return [loop(lambda at: self._apart(lambda line: line.terms([*position, at], others)))]
        if self._is_long(first, _MOST_IN_ORDER):
            return emit.in_parts(first, _FEW_TERMS, partial(self._part, position, others))
        return [
            loop(
                lambda at: emit.grid(others, lambda rest: self.add([*position, at, *rest]), 1),
            )
        ]

    def _part(self, position: list[Any], others: Sequence[int], start: Any, size: int) -> list[Any]:
        rest = [index(0)] * len(others)
        return self._apart(
            lambda part: [emit.serial(size, lambda i: part.add([*position, start + i, *rest]))]
        )

    def _is_long(self, terms: int, most: int) -> bool:
        """Whether a sum of ``terms`` is to be added up in parts."""
        from tvm import tirx

        is_sum = isinstance(self.main.value, tirx.Add)
        return is_sum and terms > most and str(self.main.buffer.dtype).startswith("float")

    def _apart(self, terms: Callable[[_Block], list[Any]]) -> list[Any]:
        """Sum up some terms on their own, then take the sums into every register."""
        part = _Block(self.request, self.where, self.starts[0], self.widths)
        pairs = zip(self.registers, part.registers, self.widths, strict=True)
        return [
            *part.begin(),
            *terms(part),
            *[_into(self.request, own, index(0), other, width) for own, other, width in pairs],
        ]

    def each(self, body: Callable[[Any, Any, Any], Any]) -> list[Any]:
        """``body(register, result, lane)`` for the lanes of every register."""

        def loop(register: Any, width: int, start: Any) -> Any:
            return emit.vectorized(width, lambda lane: body(register, start + lane, lane))

        return [
            loop(*parts) for parts in zip(self.registers, self.widths, self.starts, strict=True)
        ]

    def begin(self) -> list[Any]:
        """Make the registers, without a term."""
        return [
            *emit.allocate(self.registers),
            *self.each(lambda register, at, lane: emit.store(register, lane, self.main.init)),
        ]

    def combine(self, value: Callable[[Any], Any]) -> list[Any]:
        """Take ``value(result)`` into every register."""
        return self.each(
            lambda register, at, lane: emit.store(
                register, lane, _combine(self.request, emit.load(register, lane), value(at))
            )
        )

    def add(self, reduced: list[Any]) -> list[Any]:
        """Take one term into every register."""
        return self.combine(lambda at: _term(self.request, self.where(at), reduced))

    def finish(self) -> list[Any]:
        """The epilogue and the store."""
        parts = zip(self.registers, self.widths, self.starts, strict=True)
        return [
            statement
            for register, width, start in parts
            for statement in _finish(self.request, self.where, start, register, width)
        ]


def _finish(request: Request, where: Any, start: Any, register: Any, lanes: int) -> list[Any]:
    """The epilogue on a register of results, and the store."""
    group = request.group
    main = group.main
    assert main is not None
    return store_vector(
        request.memory,
        group.result,
        group.inlined,
        lanes,
        lambda lane: where(start + lane),
        held_lane=lambda lane: [(main.buffer, lambda _: emit.load(register, lane))],
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
            return _term(request, where, found)

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
                _combine(request, emit.load(register, lane), term(position, start + lane)),
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
        for k, width in enumerate(_widths(length - done, lanes)):
            statements.append(add(sums[k], width, position, index(done + k * lanes)))
        return statements

    statements = emit.allocate([*sums, total])
    statements += [_fill(register, lanes, main.init) for register in sums]
    statements.append(emit.grid(list(outer), run, 1))
    statements += [_into(request, sums[0], index(0), register, lanes) for register in sums[1:]]
    statements += _combine_lanes(request, sums[0], total, lanes)
    return [*statements, *_finish(request, lambda _: where, index(0), total, 1)]


def _combine_lanes(request: Request, register: Any, total: Any, lanes: int) -> list[Any]:
    """All lanes of ``register`` into one: by halves, then one after the other."""
    statements: list[Any] = []
    while lanes > 2 and lanes % 2 == 0:
        lanes //= 2
        statements.append(_into(request, register, index(lanes), register, lanes))
    value = emit.load(register, index(0))
    for lane in range(1, lanes):
        value = _combine(request, value, emit.load(register, index(lane)))
    return [*statements, emit.store(total, index(0), value)]


def _fill(register: Any, lanes: int, value: Any) -> Any:
    return emit.vectorized(lanes, lambda lane: emit.store(register, lane, value))


def _into(request: Request, register: Any, offset: Any, other: Any, lanes: int) -> Any:
    """``register`` ⊕= ``other`` from lane ``offset`` on (0 for another register)."""
    return emit.vectorized(
        lanes,
        lambda lane: emit.store(
            register,
            lane,
            _combine(request, emit.load(register, lane), emit.load(other, offset + lane)),
        ),
    )

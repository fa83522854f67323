"""Transpositions: an input walks, along the axis it has last, elements that the result has rows apart.

    for other axes:  for blocks of the axis that the input has last (shared by threads):
        for cache lines of the result's last axis:  for four elements of the block:
            ask for the four lines of the result that are written a few steps on
            registers = four elements of the input from each of as many rows as the line has elements
            transpose 4x4 in every 128 bits of them; store each as a part of its line

Loads of 128 bits are put together to vectors of all lanes, so that two steps of shuffles transpose a
vector of any length. A block is as wide as a line; as two, the neighbours that memory is fetched in,
where the tensors leave the second cache level: the other half would be fetched in vain. With wider ones
the lines of the result are no longer in the first level when their neighbours are written. Rows of up to
four lines are read whole. What does not fill a tile at an end is a tile that overlaps the one before, and
writes the same values again. Rows of two or three elements are interleaved instead, or made of such
(interleaving.py).

Stages on the way (a bias, an activation) are computed of what is loaded, four elements at a time. Where
that would be slow or wrong, an element comes from each of as many cache lines, and the lines still are in the
first cache level for the next vector:

    for other axes:  for blocks of a line of the input:  for vectors of the last axis:
        for the block:  out[vector] = input
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from edgepack.compiler.schedules import emit
from edgepack.compiler.schedules.axes import Walk
from edgepack.compiler.schedules.expressions import index, is_cheap, is_movement, visit
from edgepack.compiler.schedules.interleaving import Place, interleaved, separated
from edgepack.compiler.schedules.nest import FLOAT_BITS, Request
from edgepack.compiler.schedules.prefetch import is_worth
from edgepack.compiler.schedules.values import LINE, store_vector, vector_of

_QUAD = 4
"""Elements of four bytes in 128 bits: what a shuffle of any instruction set reaches across."""
_SHORT = 4 * LINE
"""Rows of the input up to this length are one block."""
_RUN = 64 * LINE
"""Elements of rows that are interleaved, or made of such, that one thread takes at a time."""
_AHEAD = 2
"""Blocks from what is written to what is asked for. Stores wait for their lines in order, and of one
that reaches into a next line, that is not foreseen: twice the time where rows are no multiple of a line."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Transposition:
    """The loops of a nest that has one: ``lengths`` of them, of which the last is the result's last axis.

    ``across`` is the loop along which an input lies in memory; ``where`` gives the position in the
    result from one index a loop.
    """

    lengths: Sequence[int]
    across: int
    where: Callable[[list[Any]], list[Any]]

    def position(self, others: Sequence[Any], cross: Any, last: Any) -> list[Any]:
        """The position where the remaining loops are at ``others``."""
        found = list(others)
        found.insert(self.across, cross)
        return self.where([*found, last])

    @property
    def others(self) -> list[int]:
        """The lengths of the remaining loops."""
        return [x for loop, x in enumerate(self.lengths[:-1]) if loop != self.across]


def across(walk: Walk, merged: Sequence[Sequence[int]]) -> int | None:
    """The loop that an input walks element by element although it is not the last; None if none."""
    for access in walk.steps[1:]:
        steps = [access[axes[-1]] for axes in merged]
        if len(steps) > 1 and steps[-1] not in (0, 1) and 1 in steps[:-1]:
            return steps.index(1)
    return None


@dataclass(frozen=True, kw_only=True, eq=False)
class _Parts:
    """``count`` parts of ``size`` elements of a loop, one after the other from ``first`` on."""

    first: int
    size: int
    count: int

    def start(self, number: Any) -> Any:
        """Where a part begins."""
        return index(self.first) + number * index(self.size)


def nest(
    request: Request,
    loops: Transposition,
    value: Any,
    walk: Walk,
    merged: Sequence[Sequence[int]],
) -> Any:
    """The loops, for the element ``value``; ``merged`` are the axes that each was made from."""
    body, blocks, columns = _plan(request, loops, value, walk, merged)

    def part(others: list[Any], block: _Parts, number: Any, column: _Parts, j: Any) -> Any:
        place = partial(loops.position, others)
        return body(request, place, block.start(number), block.size, column.start(j), column.size)

    def flat(block: _Parts, i: Any, column: _Parts, j: Any) -> Any:
        *others, number = emit.position_of([*loops.others, block.count], i)
        return part(others, block, number, column, j)

    several = math.prod(loops.others)
    inner = [(column, column.count) for column in columns]
    if request.tasks > 1 and several < 4 * request.tasks:
        outer = [(block, several * block.count) for block in blocks]
        return emit.segmented(outer, inner, flat, request.tasks)
    outer = [(block, block.count) for block in blocks]
    return emit.grid(
        loops.others,
        lambda others: emit.segmented(outer, inner, partial(part, others), 1),
        request.tasks,
    )


def _plan(
    request: Request,
    loops: Transposition,
    value: Any,
    walk: Walk,
    merged: Sequence[Sequence[int]],
) -> tuple[Callable[..., Any], list[_Parts], list[_Parts]]:
    """What writes a part of the result, and the parts across and along its last axis."""
    length, last = loops.lengths[loops.across], loops.lengths[-1]
    stored, *loaded = [
        (access[merged[loops.across][-1]], access[merged[-1][-1]]) for access in walk.steps
    ]
    by_value = any(walk.by_value[axis] for axis in merged[loops.across])
    if _has_shuffles(request) and not by_value and all(step in (0, 1) for step, _ in loaded):
        if min(length, last) >= _QUAD and stored[1] == 1 and _is_short(value):
            elements = math.prod(loops.lengths)
            block = LINE if 8 * elements <= request.target.l2_bytes else 2 * LINE
            ahead = _AHEAD * block if is_worth(elements, request.target) else 0
            body = partial(_tiles, ahead=ahead)
            return body, _parts(length, length if length <= _SHORT else block), _lines(last)
        if last < _QUAD <= length and stored == (last, 1):
            return interleaved, _parts(length, _RUN), _parts(last, last)
        from_short_rows = length < _QUAD <= last and loaded == [(1, length)]
        if from_short_rows and stored[1] == 1 and is_movement(value):
            return separated, _parts(length, length), _parts(last, _RUN)
    return _gathered, _parts(length, LINE), _parts(last, request.lanes)


def _has_shuffles(request: Request) -> bool:
    """Whether the target shuffles elements of the result's type, two vectors to one."""
    of_four_bytes = str(request.group.result.buffer.dtype).endswith(str(FLOAT_BITS))
    is_vector = request.lanes >= _QUAD and not request.target.arch.startswith("riscv")
    return of_four_bytes and is_vector


def _is_short(value: Any) -> bool:
    """Whether four elements are computed so fast that they need not be a whole vector."""
    from tvm import ir, tirx

    return is_cheap(value) and not any(
        isinstance(node, (ir.Call, tirx.Select)) for node in visit(value)
    )


def _parts(length: int, size: int) -> list[_Parts]:
    """Parts of ``size``, and a smaller one."""
    whole, rest = divmod(length, size)
    parts = (
        _Parts(first=0, size=size, count=whole),
        _Parts(first=length - rest, size=rest, count=1),
    )
    return [part for part in parts if part.count * part.size]


def _lines(length: int) -> list[_Parts]:
    """Parts of a cache line, and a power of two that holds what is left, some of it written twice."""
    *whole, last = _parts(length, min(LINE, 1 << (length.bit_length() - 1)))
    if last.count == 1:
        size = max(_QUAD, 1 << (last.size - 1).bit_length())
        last = _Parts(first=length - size, size=size, count=1)
    return [*whole, last]


def _gathered(request: Request, place: Place, start: Any, count: int, last: Any, lanes: int) -> Any:
    """A vector of each of ``count`` rows of the result, element by element of the input."""
    group = request.group
    return emit.serial(
        count,
        lambda i: store_vector(
            request.memory,
            group.result,
            group.inlined,
            lanes,
            lambda lane: place(start + i, last + lane),
        ),
    )


def _tiles(
    request: Request, place: Place, start: Any, count: int, last: Any, width: int, ahead: int
) -> list[Any]:
    """The same in tiles of four rows; ``ahead`` is how far on lines are asked for, 0 if none is."""
    whole, rest = divmod(count, _QUAD)
    tile = partial(_tile, request, place, last=last, width=width, ahead=ahead)
    return [
        emit.serial(whole, lambda i: tile(start + i * index(_QUAD))) if whole else None,
        emit.sequence(tile(start + index(count - _QUAD))) if rest else None,
    ]


def _tile(
    request: Request, place: Place, start: Any, last: Any, width: int, ahead: int
) -> list[Any]:
    """``width`` elements of each of four rows."""
    memory, buffer = request.memory, request.group.result.buffer
    dense, lanes = memory.of(buffer), min(request.lanes, width)

    def target(row: int, offset: int) -> Any:
        return memory.index(buffer, place(start + index(row), last + index(offset)))

    statements = [
        emit.prefetch(dense, target(row, ahead), 1, to_write=True) for row in range(_QUAD) if ahead
    ]
    for offset in range(0, width, lanes):
        quads = [
            _quad(request, place, start, last + index(offset + lane), statements)
            for lane in range(lanes)
        ]
        for row, vector in enumerate(_transposed(quads, statements)):
            where = emit.lanes_of(target(row, offset), lanes)
            statements.append(emit.store(dense, where, vector))
    return statements


def _quad(request: Request, place: Place, start: Any, last: Any, statements: list[Any]) -> Any:
    """Four elements that lie side by side in the input, with what is computed of them."""
    return vector_of(
        request.memory,
        request.group.result,
        request.group.inlined,
        _QUAD,
        lambda lane: place(start + lane, last),
        statements,
    )


def _transposed(quads: Sequence[Any], statements: list[Any]) -> list[Any]:
    """Four vectors, of which each has one element of every quad."""
    lanes = len(quads)
    joined = [
        emit.bind(emit.shuffle(quads[j::_QUAD], range(lanes)), "joined", statements)
        for j in range(_QUAD)
    ]
    for _ in range(2):
        first, second, third, fourth = joined
        joined = [
            emit.bind(emit.shuffle(pair, _zip(lanes, half)), "zipped", statements)
            for pair in ((first, third), (second, fourth))
            for half in (0, 2)
        ]
    return joined


def _zip(lanes: int, half: int) -> list[int]:
    """Of two vectors, two elements of each in turn in every 128 bits, from the one at ``half`` on."""
    return [
        start + half + k + vector
        for start in range(0, lanes, _QUAD)
        for k in range(2)
        for vector in (0, lanes)
    ]

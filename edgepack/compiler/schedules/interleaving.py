"""Transpositions of which one side has rows of two or three elements: an image's channels, a channel shuffle.

    for vectors of the long axis:  load a vector of each long row
        shuffle them to vectors that hold the short rows side by side; store those      (interleaved)

    for vectors of the long axis:  load as many side by side as short rows have elements
        shuffle them to a vector of each long row; store those                          (separated)

All of both tensors is read and written in whole vectors, in memory order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from edgepack.compiler.schedules import emit
from edgepack.compiler.schedules.expressions import index
from edgepack.compiler.schedules.nest import Request
from edgepack.compiler.schedules.values import Values, vector_of

Place = Callable[[Any, Any], list[Any]]
"""The position of the result from that across and that along its last axis."""


def interleaved(
    request: Request, place: Place, start: Any, count: int, last: Any, width: int
) -> list[Any]:
    """``count`` rows of the result, of ``width`` elements each, from as many rows of the input."""
    group, memory = request.group, request.memory

    def vectors(offset: Any, lanes: int) -> list[Any]:
        statements: list[Any] = []
        first = start + offset
        rows = [
            vector_of(
                *(memory, group.result, group.inlined, lanes),
                lambda lane, j=j: place(first + lane, last + index(j)),  # type: ignore[misc]
                statements,
            )
            for j in range(width)
        ]
        order = [j * lanes + i for i in range(lanes) for j in range(width)]
        target = memory.index(group.result.buffer, place(first, last))
        for number, vector in enumerate(_shuffled(rows, lanes, order)):
            where = emit.lanes_of(target + index(number * lanes), lanes)
            statements.append(emit.store(memory.of(group.result.buffer), where, vector))
        return statements

    return emit.in_parts(count, request.lanes, vectors)


def separated(
    request: Request, place: Place, start: Any, count: int, last: Any, width: int
) -> list[Any]:
    """``width`` elements of each of ``count`` rows of the result, from as many rows of the input."""
    group, memory = request.group, request.memory

    def vectors(offset: Any, lanes: int) -> list[Any]:
        statements: list[Any] = []
        values = Values(memory=memory, inlined=group.inlined, looking=True)
        load = values.of_stage(group.result, place(start, last + offset))
        parts = []
        for number in range(count):
            where = emit.lanes_of(load.indices[0] + index(number * lanes), lanes)
            parts.append(emit.bind(emit.load(load.source, where), "part", statements))
        order = [i * count + row for row in range(count) for i in range(lanes)]
        for row, vector in enumerate(_shuffled(parts, lanes, order)):
            where = memory.index(group.result.buffer, place(start + index(row), last + offset))
            dense = memory.of(group.result.buffer)
            statements.append(emit.store(dense, emit.lanes_of(where, lanes), vector))
        return statements

    return emit.in_parts(width, request.lanes, vectors)


def _shuffled(vectors: Sequence[Any], lanes: int, order: Sequence[int]) -> list[Any]:
    """As many vectors, of the elements of ``vectors`` in that order."""
    if lanes == 1:
        return [vectors[element] for element in order]
    return [
        emit.shuffle(vectors, order[start : start + lanes]) for start in range(0, len(order), lanes)
    ]

"""What a reduction's loop nests are made of: registers of partial results, and a block of them.

A long sum is added up in parts, line by line or so many terms at a time, and the parts then.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from edgepack.compiler.schedules import emit
from edgepack.compiler.schedules.expressions import index, rebuild, self_update
from edgepack.compiler.schedules.nest import Request
from edgepack.compiler.schedules.values import Values, store_vector

_FEW_TERMS = 64
"""Added up one after another, equal terms are all rounded the same way, which for the pixels of an image
can cost four digits. So many lose two of eight at most."""
_MOST_IN_ORDER = 4096
"""Along a single axis: as other runtimes have it, so that networks get the digits that they were made with
(magika's takes a variance as the mean of squares less the square of the mean)."""


class Block:
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

    def _apart(self, terms: Callable[[Block], list[Any]]) -> list[Any]:
        """Sum up some terms on their own, then take the sums into every register."""
        part = Block(self.request, self.where, self.starts[0], self.widths)
        pairs = zip(self.registers, part.registers, self.widths, strict=True)
        return [
            *part.begin(),
            *terms(part),
            *[take_into(self.request, own, index(0), other, width) for own, other, width in pairs],
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
                register, lane, combined(self.request, emit.load(register, lane), value(at))
            )
        )

    def add(self, reduced: list[Any]) -> list[Any]:
        """Take one term into every register."""
        return self.combine(lambda at: term_of(self.request, self.where(at), reduced))

    def finish(self) -> list[Any]:
        """The epilogue and the store."""
        parts = zip(self.registers, self.widths, self.starts, strict=True)
        return [
            statement
            for register, width, start in parts
            for statement in finished(self.request, self.where, start, register, width)
        ]


def widths_of(length: int, lanes: int) -> list[int]:
    """``length`` elements as whole vectors and one shorter."""
    return [lanes] * (length // lanes) + ([length % lanes] if length % lanes else [])


def term_of(request: Request, position: Sequence[Any], reduced: Sequence[Any]) -> Any:
    """The reduction's term at a position of its axes and of its reduced axes."""
    main = request.group.main
    assert main is not None
    update = self_update(main.buffer, main.value)
    assert update is not None
    values = Values(memory=request.memory, inlined=request.group.inlined)
    axes = {v: p for (v, _), p in zip(main.axes, position, strict=True)}
    axes |= {v: p for (v, _), p in zip(main.reduced, reduced, strict=True)}
    return rebuild(update[1], axes, lambda b, i, g: values.at(b, i, True))


def combined(request: Request, left: Any, right: Any) -> Any:
    """``left`` ⊕ ``right``."""
    main = request.group.main
    assert main is not None
    return type(main.value)(left, right)


def finished(request: Request, where: Any, start: Any, register: Any, lanes: int) -> list[Any]:
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


def take_into(request: Request, register: Any, offset: Any, other: Any, lanes: int) -> Any:
    """``register`` ⊕= ``other`` from lane ``offset`` on (0 for another register)."""
    return emit.vectorized(
        lanes,
        lambda lane: emit.store(
            register,
            lane,
            combined(request, emit.load(register, lane), emit.load(other, offset + lane)),
        ),
    )

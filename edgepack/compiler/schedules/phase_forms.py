"""Which phases of a transposed convolution share a vector, and the panels that these are cut into.

Lanes are (phase, channel), whole phases a panel, as phase_lanes.py computes them. The form is the one
with the least estimated time: lanes that hold no result, weights that are zero where a stride does not
divide the kernel, and stores of parts of a register all count.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from edgepack.compiler.schedules.nest import Request
from edgepack.compiler.schedules.phases import Transposed
from edgepack.compiler.schedules.register_tile import Panel, Vector, make_panels, row_cost

_PART = 3.0
"""Cycles for the epilogue and store of a part of a register, beyond those of a whole one."""


@dataclass(frozen=True, kw_only=True)
class Form:
    """How many phases (vertical, horizontal) are lanes, and the panels that these are cut into."""

    held: tuple[int, int]
    panels: tuple[Panel, ...]

    @property
    def are_lanes(self) -> bool:
        """Whether panels hold phases; else one phase's channels."""
        return self.held != (1, 1)


def best_form(request: Request, transposed: Transposed) -> tuple[Form, float]:
    """The form with the least estimated cycles for an image of one group, and those."""
    costs = [(form, _cost(request, transposed, form)) for form in forms_of(request, transposed)]
    return min(costs, key=lambda pair: pair[1])


def forms_of(request: Request, transposed: Transposed) -> Iterator[Form]:
    """All forms: phases in loops, in lanes row by row and so many a panel, or all in the lanes."""
    out, lanes = transposed.out, request.lanes
    down, across = transposed.rows.stride, transposed.columns.stride
    most = request.registers(transposed.channels * transposed.groups).vectors
    for vectors in range(1, min(most, -(-out // lanes)) + 1):
        yield Form(held=(1, 1), panels=tuple(make_panels(out, vectors, lanes, padded=True)))
    for together in range(1, across + 1):
        if across > 1 and together * out <= most * lanes:
            yield Form(held=(1, across), panels=_phase_panels(across, together, out, lanes))
    if down > 1 and down * across * out <= most * lanes:
        held = (down, across)
        yield Form(held=held, panels=_phase_panels(down * across, down * across, out, lanes))


def _phase_panels(phases: int, together: int, out: int, lanes: int) -> tuple[Panel, ...]:
    """Panels of ``together`` phases of ``out`` results each, and one of those that are left."""

    def panel(first: int, count: int, size: int) -> Panel:
        width = size * out
        (whole,) = make_panels(width, -(-width // lanes), lanes, padded=True)
        return replace(whole, start=first * out, count=count)

    count, rest = divmod(phases, together)
    whole = panel(0, count, together)
    return (whole, panel(count * together, 1, rest)) if rest else (whole,)


def _cost(request: Request, transposed: Transposed, form: Form) -> float:
    registers = request.registers(transposed.channels * transposed.groups)
    rows, columns = transposed.rows, transposed.columns
    lines, taps = float(rows.out), rows.kernel / rows.stride
    if form.held[0] == rows.stride:
        lines, taps = float(rows.blocks), float(rows.window)
    lines *= columns.stride // form.held[1]
    depth = transposed.channels * taps * columns.window
    total = 0.0
    for panel in form.panels:
        parts = sum(len(parts_of(form, transposed, panel, vector)) for vector in panel.vectors)
        tiles = row_cost(columns.blocks, len(panel.vectors), depth, registers)
        stores = columns.blocks * (parts - len(panel.vectors)) * _PART
        total += panel.count * lines * (tiles + stores)
    return total


def parts_of(
    form: Form, transposed: Transposed, panel: Panel, vector: Vector, split: bool = False
) -> list[tuple[int, int]]:
    """(first, lanes) of a vector's lanes that lie side by side in memory: of a phase, or of a row of them.

    ``split``: of one phase in any case, so that it can be left out.
    """
    size = transposed.out
    if not form.are_lanes:
        size = panel.width
    elif size == 1 and not split:
        size = form.held[1]
    found = []
    first, stop = vector.offset, vector.offset + vector.stored
    while first < stop:
        after = min(stop, (first // size + 1) * size)
        found.append((first - vector.offset, after - first))
        first = after
    return found

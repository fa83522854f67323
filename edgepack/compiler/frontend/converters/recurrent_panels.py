"""Panels of R, the recurrent weights: some gates beside each other, whose sums stay in registers.

The weights lie in the order in which they are read: [directions, panels, hidden, lanes of a panel].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from edgepack.compiler.frontend.converters.heaps import Cell, store
from edgepack.compiler.schedules import emit
from edgepack.compiler.schedules.expressions import index
from edgepack.compiler.schedules.register_tile import RegisterFile

if TYPE_CHECKING:
    import numpy as np

    from edgepack.compiler.frontend.converters.recurrent_kernel import CellKind, Step
    from edgepack.targets import Target

LANES = 16
"""Gates of a panel: one to four vector registers of every core that has some."""
_CHAINS = 8
"""Registers of sums at least: latency 4, two multiply-adds a cycle. Rows of R go to them in turn."""
_MOST_TURNS = 4
"""With more, a short hidden state is mostly their sum."""
_MOST_ENTRIES = 8
"""With more, code grows and nothing else."""


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """What a core's registers hold of the sums."""

    entries: int
    """Entries of the batch, at most, that go together: each element of R is loaded once for all."""
    vectors: int
    """Registers of a panel."""

    @classmethod
    def of(cls, target: Target | None, dtype: str) -> Tiling:
        """That of ``target``, or without one of a core with 32 registers of 128 bits."""
        if target is None:
            return cls(entries=4, vectors=4)
        lanes = max(1, target.vector_bits // int(dtype.removeprefix("float")))
        vectors = -(-LANES // lanes)
        most = RegisterFile.of(target, 0).columns(vectors)
        return cls(entries=min(most, _MOST_ENTRIES), vectors=vectors)

    def turns(self, entries: int) -> int:
        """Sums of each gate that ``entries`` need, so that none waits for the last multiply-add."""
        return max(1, min(_MOST_TURNS, _CHAINS // (entries * self.vectors)))


@dataclass(frozen=True, kw_only=True)
class Part:
    """Rows of R that a step multiplies at once; they fill whole panels, the last with zeros."""

    first: int
    stop: int

    @property
    def panels(self) -> int:
        """How many."""
        return -(-(self.stop - self.first) // LANES)

    @property
    def missing(self) -> int:
        """Rows of zeros."""
        return self.panels * LANES - (self.stop - self.first)


def parts_of(cell: CellKind, hidden: int) -> list[Part]:
    """One, or two where some gates need more than the hidden state."""
    ends = sorted({0, cell.at_once, cell.gates})
    return [Part(first=first * hidden, stop=stop * hidden) for first, stop in pairwise(ends)]


def packed(weights: np.ndarray, cell: CellKind) -> np.ndarray:
    """R [directions, gates, hidden] as [directions, panels, hidden, lanes of a panel].

    What a step multiplies at once fills whole panels, the last of them with zeros.
    """
    import numpy as np

    directions, _, hidden = weights.shape
    found = []
    for part in parts_of(cell, hidden):
        rows = np.pad(weights[:, part.first : part.stop], ((0, 0), (0, part.missing), (0, 0)))
        found.append(rows.reshape(directions, part.panels, LANES, hidden).transpose(0, 1, 3, 2))
    return np.ascontiguousarray(np.concatenate(found, axis=1))


def multiply(entries: list[Step], value: Callable[[Step, Any], Any], which: int, into: int) -> None:
    """Add the product of a vector with the gates of R's part ``which`` to those from ``into`` on."""
    from tvm.script.ir_builder import tirx as T

    recurrence = entries[0].recurrence
    parts = parts_of(recurrence.cell, recurrence.hidden)
    before = sum(part.panels for part in parts[:which])
    whole, rest = divmod(parts[which].stop - parts[which].first, LANES)
    start = index(into * recurrence.hidden)
    if whole:
        with T.serial(0, index(whole)) as panel:
            _add_panel(entries, value, index(before) + panel, start + panel * index(LANES), LANES)
    if rest:
        _add_panel(entries, value, index(before + whole), start + index(whole * LANES), rest)


def _add_panel(
    entries: list[Step], value: Callable[[Step, Any], Any], panel: Any, gate: Any, lanes: int
) -> None:
    from tvm import tirx
    from tvm.script.ir_builder import tirx as T

    hidden = entries[0].recurrence.hidden
    turns = min(hidden, entries[0].recurrence.tiling.turns(len(entries)))
    zeros = emit.splat(tirx.const(0, str(entries[0].gates.dtype)), lanes)
    starts = [[entry.gate(emit.lanes_of(gate, lanes)), *[zeros] * (turns - 1)] for entry in entries]
    sums = [[Cell(start) for start in own] for own in starts]

    def add(row: Any, turn: int) -> None:
        weights = entries[0].weights(panel, row, lanes)
        for entry, own in zip(entries, sums, strict=True):
            own[turn].set(own[turn].value + emit.splat(value(entry, row), lanes) * weights)

    whole, rest = divmod(hidden, turns)
    with T.serial(0, index(whole)) as block:
        for turn in range(turns):
            add(block * index(turns) + index(turn), turn)
    for turn in range(rest):
        add(index(whole * turns + turn), turn)
    for entry, own in zip(entries, sums, strict=True):
        total = own[0].value
        for other in own[1:]:
            total = total + other.value
        store(entry.gates, entry.at(emit.lanes_of(gate, lanes)), total)

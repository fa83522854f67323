"""The register tile that convolutions and matrix products share.

    registers[column][vector] = 0
    for k:  for vectors: b = B[k, vector];  for columns: a = A[column, k] in every lane
            registers[column][vector] += a * b
    epilogue on every register, store

Every element of A and B that is loaded serves a whole row or column of the tile. Its size follows
from the register file: columns * vectors sums, one register for each vector of B and one for A; one
more, and LLVM spills all of them. For a core that issues in order LLVM moves loads far ahead of their
use, so there the sums leave three eighths of the registers free. Within that, the size with the least
estimated time is taken: multiply-adds and loads at two a cycle, a chain of sums at four cycles a
step, which is about right for every core that has a profile (Agner Fog, "Instruction tables"; Arm's
software optimization guides for Cortex-A53, A72 and A76). A panel that the first cache level does not
hold comes from the second one for every tile, or from further away, so that a tile of few columns would
wait for it; where its rows begin anywhere in a line, each brings one line more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from edgepack.compiler.schedules.values import LINE

if TYPE_CHECKING:
    from edgepack.targets import Target

_LATENCY = 4.0
"""Cycles from one multiply-add into a register to the next."""
_PER_CYCLE = 2.0
"""Multiply-adds, and loads, that a core starts in one cycle."""
_FAR = 16.0
"""Bytes of B that a core gets in a cycle from behind its second cache level, as it computes."""
_NEAR = 28.0
"""The same from its second cache level: measured with AVX-512, a line of 64 bytes in some 2.3 cycles."""
_STORE = 1.5
"""Cycles for one register at the end of a tile: epilogue and store."""
_TILE = 12.0
"""Cycles that starting and ending a tile's loop costs."""
_MOST_COLUMNS = 30
_MOST_VECTORS = 8
_MOST_MORE = 4 / 3
"""Tiles, as a multiple of what the registers ask for, that threads may have to share them evenly."""


@dataclass(frozen=True, kw_only=True)
class Vector:
    """Lanes of a panel: ``lanes`` are computed; those from ``skipped`` on are results, ``stored`` of them."""

    offset: int
    lanes: int
    stored: int
    skipped: int = 0


@dataclass(frozen=True, kw_only=True)
class Panel:
    """``count`` panels of equal width one after another, from result column ``start`` on.

    ``width`` is what is stored of each, ``padded`` what its weights take. One that overlaps the panel
    before (make_overlapping_panels) counts in both what it skips.
    """

    start: int
    count: int
    width: int
    padded: int
    vectors: tuple[Vector, ...]


@dataclass(frozen=True, kw_only=True)
class RegisterFile:
    """Vector registers of a core, and how many of them may hold sums."""

    registers: int
    sums: int
    rows: int = 1 << 30
    """How many of A's rows the first cache level holds beside each other."""
    near: int = 1 << 30
    """Bytes of the first cache level."""
    cache: int = 1 << 30
    """Bytes of the second one."""

    @classmethod
    def of(cls, target: Target, step: int) -> RegisterFile:
        """The register file that ``target`` describes, for columns that lie ``step`` bytes apart.

        Columns whose distance is a multiple of a large power of two fall into the same few sets of
        the cache: of distance 4096, 32 KiB hold eight lines, whatever the associativity. Beyond the
        size of a way they all fall into one set, which holds as many as there are ways. An eighth is
        left to B.
        """
        count = target.vector_registers
        apart = min(step & -step, target.l1_way_bytes) if step else 1
        return cls(
            registers=count,
            sums=count * 5 // 8 if target.issue == "in-order" else count,
            rows=max(1, 7 * target.l1_bytes // (8 * apart)),
            near=target.l1_bytes,
            cache=target.l2_bytes,
        )

    @property
    def vectors(self) -> int:
        """The most vectors of a panel."""
        return max(1, min((self.registers - 2) // 2, _MOST_VECTORS))

    def columns(self, vectors: int) -> int:
        """The most columns of a tile of ``vectors``."""
        fitting = min((self.registers - 1 - vectors) // vectors, self.sums // vectors)
        return max(1, min(_MOST_COLUMNS, fitting, self.rows))

    def arrival(self, term: int, depth: int) -> float:
        """Cycles in which ``term`` bytes of a panel of ``depth`` terms come, tile after tile.

        0 where half of the first cache level holds the panel: then it is there.
        """
        if 2 * term * depth > self.cache:  # prefetchers bring in time what half of it holds
            return term / _FAR
        return term / _NEAR if 2 * term * depth > self.near else 0.0


def make_panels(width: int, vectors: int, lanes: int, *, padded: bool) -> list[Panel]:
    """Cut ``width`` results into panels of ``vectors`` registers, and one narrower at the end.

    The last vector computes as many lanes as there are results left. Where weights are ``padded`` with
    zeros, it is whole, or of a power of two if it is the only one: LLVM may spill the sums of a tile
    whose vectors differ in length.
    """
    full = vectors * lanes
    panels = []
    count, rest = divmod(width, full)
    if count:
        whole = tuple(Vector(offset=i * lanes, lanes=lanes, stored=lanes) for i in range(vectors))
        panels.append(Panel(start=0, count=count, width=full, padded=full, vectors=whole))
    if rest:
        last = []
        for offset in range(0, rest, lanes):
            stored = min(lanes, rest - offset)
            room = lanes if rest > lanes else 1 << (stored - 1).bit_length()
            computed = room if padded else stored
            last.append(Vector(offset=offset, lanes=computed, stored=stored))
        panels.append(
            Panel(
                start=count * full,
                count=1,
                width=rest,
                padded=last[-1].offset + last[-1].lanes,
                vectors=tuple(last),
            )
        )
    return panels


def make_overlapping_panels(width: int, vectors: int, lanes: int) -> list[Panel]:
    """As make_panels() for a B that is read where it is: the panel at the end begins earlier, if it can.

    Its vectors are then whole, of which the first skips what the panel before has stored. LLVM loads a
    vector of nine lanes in three parts.
    """
    *panels, last = make_panels(width, vectors, lanes, padded=False)
    room, short = len(last.vectors) * lanes, last.vectors[-1].lanes
    is_narrow = len(last.vectors) == 1 and short & (short - 1) == 0  # a register of that length
    if short == lanes or is_narrow or width < room:
        return [*panels, last]
    skipped = room - last.width
    first = Vector(offset=0, lanes=lanes, stored=lanes - skipped, skipped=skipped)
    others = (Vector(offset=o, lanes=lanes, stored=lanes) for o in range(lanes, room, lanes))
    whole = Panel(start=width - room, count=1, width=room, padded=room, vectors=(first, *others))
    return [*panels, whole]


def split_evenly(length: int, most: int, tasks: int = 1) -> list[int]:
    """``length`` columns in as few tiles of at most ``most`` as can be, about equal ones.

    In a few more where each of ``tasks`` threads then does as many.
    """
    tiles = -(-length // most)
    even = -(-tiles // tasks) * tasks
    if even <= min(_MOST_MORE * tiles, length):
        tiles = even
    base, larger = divmod(length, tiles)
    return [base + 1] * larger + [base] * (tiles - larger)


def best_vectors(
    columns: int, rows: int, width: int, depth: int, lanes: int, file: RegisterFile, apart: int = 0
) -> int:
    """Vectors of a panel: those of best_panels()."""
    return best_panels(columns, rows, width, depth, lanes, file, apart)[1]


@lru_cache(maxsize=4096)
def best_panels(
    columns: int, rows: int, width: int, depth: int, lanes: int, file: RegisterFile, apart: int = 0
) -> tuple[float, int]:
    """The least estimated cycles, and the vectors of a panel that take them.

    For ``rows`` rows of ``columns`` by ``width`` results, each of ``depth`` terms. ``apart`` are the
    elements from one term of B to the next, 0 where panels are packed.
    """

    def cost(vectors: int) -> float:
        total = 0.0
        for panel in make_panels(width, vectors, lanes, padded=True):
            used = len(panel.vectors)
            again = rows * -(-columns // file.columns(used)) > 1
            arrival = file.arrival(term_bytes(panel.padded, apart), depth) if again else 0.0
            total += panel.count * rows * row_cost(columns, used, depth, file, arrival)
        return total

    most = min(file.vectors, -(-width // lanes))
    return min((cost(vectors), vectors) for vectors in range(1, most + 1))


def term_bytes(width: int, apart: int) -> int:
    """What comes of B for ``width`` elements of a term: a line more where terms begin anywhere in one."""
    return 4 * (width + (LINE if apart % LINE else 0))


def row_cost(
    columns: int, vectors: int, depth: float, file: RegisterFile, arrival: float = 0.0
) -> float:
    """Estimated cycles for the tiles of ``columns`` results, by a panel of ``vectors`` and ``depth`` terms.

    ``arrival`` are the cycles in which a term's part of the panel comes, if it comes from afar.
    """
    total = 0.0
    for tile in split_evenly(columns, file.columns(vectors)):
        sums = tile * vectors
        step = max(sums / _PER_CYCLE, (tile + vectors) / _PER_CYCLE, _LATENCY, arrival)
        total += depth * step + sums * _STORE + _TILE
    return total


def row_tiles(length: int, most: int, tasks: int = 1) -> list[tuple[tuple[int, int], int]]:
    """``split_evenly`` as segments: ((columns, first column), number of such tiles)."""
    found = []
    start = 0
    for columns, _, count in runs(split_evenly(length, most, tasks)):
        found.append(((columns, start), count))
        start += columns * count
    return found


def runs(tiles: Sequence[Any]) -> list[tuple[Any, int, int]]:
    """Equal neighbours as (tile, first, count)."""
    found: list[tuple[Any, int, int]] = []
    for position, tile in enumerate(tiles):
        if found and found[-1][0] == tile:
            found[-1] = (tile, found[-1][1], found[-1][2] + 1)
        else:
            found.append((tile, position, 1))
    return found

"""Tiles along a row of results: those that touch an edge one by one, those between in a loop.

Where a window is so wide that many tiles touch an edge, these are in loops too, and find out there what
of their windows lies inside.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgepack.compiler.schedules import emit
from edgepack.compiler.schedules.expressions import index
from edgepack.compiler.schedules.register_tile import runs, split_evenly

LOOPED = -1
"""In place of an edge tile's column: it is not known as a number."""
_MOST_WRITTEN = 192
"""Products for each column, in all edge tiles together, that are written out: code that is seldom run."""
_ENDS = 4
"""What beginning and ending a tile is counted as."""


Tile = tuple[int, int, int | None]
"""Columns, the first one of the first such tile, and its edge (see column_tiles())."""


def column_tiles(
    total: int,
    most: int,
    is_interior: Callable[[int, int], bool],
    tile: Callable[[int, Any, int | None], list[Any]],
    taps: int = 0,
    vectors: int = 1,
) -> list[Any]:
    """Statements for ``total`` columns in tiles of at most ``most``, about equal ones.

    ``is_interior(start, columns)`` says whether a tile's windows lie inside the image. ``tile(columns,
    column, edge)`` writes one that begins at ``column``; ``edge`` is that column as a number where
    the tile is not interior, so that it can leave out what lies outside, else None. It is LOOPED if
    ``taps`` products with each of ``vectors`` would be too much to write out for all such tiles.
    """
    return emit.one_by_one(
        column_segments(total, most, is_interior, taps, vectors),
        lambda kind, i: tile(*place_of(kind, i)),
    )


def shared_lines(
    lines: int,
    total: int,
    most: int,
    is_interior: Callable[[int, int], bool],
    tasks: int,
    taps: int = 0,
    vectors: int = 1,
) -> emit.Segments:
    """What ``tasks`` threads share of results: ``lines`` of them, of kind None, or a single one's tiles.

    A signal is such a line; the kind of its tiles is a Tile.
    """
    if lines > 1 or tasks <= 1:
        return [(None, lines)]
    return column_segments(total, most, is_interior, taps, vectors, tasks)


def most_of_a_thread(lines: int, total: int, threads: int) -> int:
    """Results, of ``lines`` of ``total``, that a thread makes at most where shared_lines() are shared."""
    return -(-lines // threads) * total if lines > 1 else -(-total // threads)


def place_of(kind: Tile, number: Any) -> tuple[int, Any, int | None]:
    """The columns, the first one and the edge of tile ``number`` of a kind, as column_tiles() has them."""
    columns, first, edge = kind
    return columns, index(first) + number * index(columns), edge


def column_segments(
    total: int,
    most: int,
    is_interior: Callable[[int, int], bool],
    taps: int = 0,
    vectors: int = 1,
    tasks: int = 1,
) -> list[tuple[Tile, int]]:
    """The tiles of column_tiles(), equal neighbours together, in numbers that suit ``tasks`` threads."""
    tiles: list[tuple[int, int | None]] = []
    start = 0
    for columns in split_evenly(total, most, tasks):
        tiles.append((columns, None if is_interior(start, columns) else start))
        start += columns
    edges = sum(edge is not None for _, edge in tiles)
    if taps and edges * (taps + _ENDS) * vectors > _MOST_WRITTEN:
        tiles = [(columns, edge if edge is None else LOOPED) for columns, edge in tiles]
    segments = []
    start = 0
    for (columns, edge), _, count in runs(tiles):
        segments.append(((columns, start, edge), count))
        start += columns * count
    return segments

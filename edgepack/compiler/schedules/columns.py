"""Tiles along a row of results: those that touch an edge one by one, those between in a loop."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from edgepack.compiler.schedules import emit
from edgepack.compiler.schedules.expressions import index
from edgepack.compiler.schedules.register_tile import runs, split_evenly


def column_tiles(
    total: int,
    most: int,
    is_interior: Callable[[int, int], bool],
    tile: Callable[[int, Any, int | None], list[Any]],
) -> list[Any]:
    """Statements for ``total`` columns in tiles of at most ``most``, about equal ones.

    ``is_interior(start, columns)`` says whether a tile's windows lie inside the image. ``tile(columns,
    column, edge)`` writes one that begins at ``column``; ``edge`` is that column as a number where
    the tile is not interior, so that it can leave out what lies outside, else None.
    """
    tiles: list[tuple[int, int | None]] = []
    start = 0
    for columns in split_evenly(total, most):
        tiles.append((columns, None if is_interior(start, columns) else start))
        start += columns
    statements: list[Any] = []
    start = 0
    for (columns, edge), _, count in runs(tiles):

        def body(columns: int, edge: int | None, first: int, i: Any) -> list[Any]:
            return tile(columns, index(first) + i * index(columns), edge)

        statements.append(emit.serial(count, partial(body, columns, edge, start)))
        start += columns * count
    return statements

"""Winograd's transforms of a tile: small matrices of fractions times matrices of vectors."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from edgepack.compiler.schedules import emit


def both_ways(
    down: Sequence[Sequence[Fraction]],
    across: Sequence[Sequence[Fraction]],
    values: list[list[Any]],
    lanes: int,
    statements: list[Any],
) -> list[list[Any]]:
    """down * values * transposed(across), each element named in ``statements``."""
    columns = list(zip(*values, strict=True))
    half = [_combined(down, list(column), lanes, statements) for column in columns]
    return [_combined(across, list(line), lanes, statements) for line in zip(*half, strict=True)]


def _combined(
    matrix: Sequence[Sequence[Fraction]], values: list[Any], lanes: int, statements: list[Any]
) -> list[Any]:
    """matrix * values; factors of one cost nothing."""
    from tvm import tirx

    results = []
    for row in matrix:
        total = None
        for factor, value in sorted(
            zip(row, values, strict=True), key=lambda pair: abs(pair[0]) == 1, reverse=True
        ):
            if not factor:
                continue
            constant = emit.splat(tirx.FloatImm("float32", float(abs(factor))), lanes)
            term = value if abs(factor) == 1 else value * constant
            if total is None:
                total = (
                    term if factor > 0 else emit.splat(tirx.FloatImm("float32", 0.0), lanes) - term
                )
            else:
                total = total + term if factor > 0 else total - term
        results.append(emit.bind(total, "sum", statements))
    return results

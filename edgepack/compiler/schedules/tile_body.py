"""A register tile as TIR: sums in registers, the loop over terms, the epilogue."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from edgepack.compiler.schedules import emit
from edgepack.compiler.schedules.expressions import index
from edgepack.compiler.schedules.nest import Request
from edgepack.compiler.schedules.register_tile import Panel, Vector
from edgepack.compiler.schedules.values import store_vector


class Tile:
    """``columns`` by the vectors of ``panel``: registers of the main stage's results."""

    def __init__(self, request: Request, columns: int, panel: Panel) -> None:
        main = request.group.main
        assert main is not None
        self.request = request
        self.columns = columns
        self.panel = panel
        self.sums = [
            [emit.registers(vector.lanes, main.buffer.dtype, "sums") for vector in panel.vectors]
            for _ in range(columns)
        ]

    def start(self) -> list[Any]:
        """Make the registers, all zero."""
        main = self.request.group.main
        assert main is not None
        statements = emit.allocate([register for row in self.sums for register in row])
        for row in self.sums:
            for register, vector in zip(row, self.panel.vectors, strict=True):
                zero = emit.splat(main.init, vector.lanes)
                statements.append(emit.store(register, _all(vector.lanes), zero))
        return statements

    def accumulate(
        self,
        left: Callable[[int], Any],
        right: Callable[[int, int], Any],
        columns: Sequence[int] | None = None,
    ) -> list[Any]:
        """One term: ``left(column)`` times ``right(offset, lanes)`` in every register.

        ``left`` gives a scalar, ``right`` a vector of the panel's lanes from ``offset`` on; columns
        that are not listed get nothing.
        """
        statements: list[Any] = []
        used = list(range(self.columns)) if columns is None else list(columns)
        if not used:
            return statements
        weights = [
            emit.bind(right(vector.offset, vector.lanes), "weights", statements)
            for vector in self.panel.vectors
        ]
        for column in used:
            scalar = emit.bind(left(column), "value", statements)
            for register, vector, weight in zip(
                self.sums[column], self.panel.vectors, weights, strict=True
            ):
                position = _all(vector.lanes)
                product = emit.splat(scalar, vector.lanes) * weight
                statements.append(
                    emit.store(register, position, emit.load(register, position) + product)
                )
        return statements

    def accumulate_vectors(
        self,
        left: Callable[[int, int], Any],
        right: Callable[[int], Any],
        columns: Sequence[int],
    ) -> list[Any]:
        """As ``accumulate`` for a panel of one vector, where ``left(column, lanes)`` is one too."""
        (vector,) = self.panel.vectors
        statements: list[Any] = []
        weight = emit.bind(right(vector.lanes), "weights", statements)
        for column in columns:
            register, position = self.sums[column][0], _all(vector.lanes)
            product = left(column, vector.lanes) * weight
            statements.append(
                emit.store(register, position, emit.load(register, position) + product)
            )
        return statements

    def finish(self, where: Callable[[int, Any], list[Any]]) -> list[Any]:
        """Epilogue and store; ``where(column, offset)`` is the result's position."""
        return [
            self.store(column, vector, vector.skipped, vector.stored, partial(where, column))
            for column in range(self.columns)
            for vector in self.panel.vectors
        ]

    def store(
        self, column: int, vector: Vector, first: int, lanes: int, where: Callable[[Any], list[Any]]
    ) -> list[Any]:
        """Epilogue and store of ``lanes`` of a register, from lane ``first`` on.

        ``where(offset)`` is the position of the result at that offset of the panel.
        """
        group, main = self.request.group, self.request.group.main
        assert main is not None
        register = self.sums[column][self.panel.vectors.index(vector)]
        return store_vector(
            self.request.memory,
            group.result,
            group.inlined,
            lanes,
            lambda lane: where(index(vector.offset + first) + lane),
            held_lane=lambda lane: [
                (main.buffer, lambda _: emit.load(register, index(first) + lane))
            ],
        )


def _all(lanes: int) -> Any:
    return emit.lanes_of(index(0), lanes)

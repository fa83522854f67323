"""Det: Gaussian elimination with partial pivoting, matrix by matrix.

for matrices:  for columns:  find the pivot;  swap its row up;  for rows below:  row -= factor * pivot's
"""

from __future__ import annotations

import math
from typing import Any

from edgepack.compiler.frontend.converters.values import cast, reshaped, widened
from edgepack.compiler.frontend.node import Converter, Node
from edgepack.compiler.schedules import emit
from edgepack.compiler.schedules.expressions import index

DOMAIN = ""


def _det(node: Node) -> Any:
    from tvm import relax

    shape = node.shape()
    size = shape[-1]
    data = widened(node, node.inputs[0])
    flat = node.emit(reshaped(data, [math.prod(shape[:-2]), size, size]))
    result = node.emit(relax.TupleGetItem(node.compute(_kernel, flat), 0))
    return cast(node.emit(reshaped(result, node.outputs[0].shape)), node.dtype())


def _kernel(matrices: Any) -> Any:
    """The determinants [count] of [count, n, n], and the [n, n] that they are worked out in."""
    from tvm import te

    count, size, _ = (int(extent) for extent in matrices.shape)

    def body(inputs: list[Any], outputs: list[Any]) -> Any:
        result, work = outputs

        def one(matrix: Any) -> Any:
            return _Elimination(inputs[0], result, work, size).statements(matrix)

        return emit.serial(count, one)

    dtype = str(matrices.dtype)
    return te.extern([(count,), (size, size)], [matrices], body, dtype=[dtype, dtype])


class _Elimination:
    """The statements for one matrix."""

    def __init__(self, source: Any, result: Any, work: Any, size: int) -> None:
        self.source, self.result, self.work, self.size = source, result, work, size
        self.largest = emit.registers(1, work.dtype, "largest")
        self.pivot = emit.registers(1, "int64", "pivot")

    def statements(self, matrix: Any) -> list[Any]:
        """Multiply the pivots of matrix number ``matrix`` into its result."""
        from tvm import tirx

        def copied(at: list[Any]) -> Any:
            return tirx.BufferStore(self.work, tirx.BufferLoad(self.source, [matrix, *at]), at)

        one = tirx.const(1, self.work.dtype)
        return [
            *emit.allocate([self.largest, self.pivot]),
            emit.grid([self.size, self.size], copied, 1),
            emit.store(self.result, matrix, one),
            emit.serial(self.size, lambda step: self._step(matrix, step)),
        ]

    def _step(self, matrix: Any, step: Any) -> list[Any]:
        from tvm import tirx

        size = index(self.size)
        total, pivot = emit.load(self.result, matrix), self._at(step, step)
        row = emit.load(self.pivot, index(0))
        signed = tirx.Select(row == step, total, -total)
        return [
            emit.store(self.largest, index(0), tirx.const(-1, self.work.dtype)),
            emit.store(self.pivot, index(0), step),
            emit.between(step, size, lambda row: self._compare(row, step)),
            emit.between(step, size, lambda column: self._swap(step, column)),
            emit.store(self.result, matrix, signed * pivot),
            emit.between(step + 1, size, lambda row: self._eliminate(row, step)),
        ]

    def _at(self, row: Any, column: Any) -> Any:
        from tvm import tirx

        return tirx.BufferLoad(self.work, [row, column])

    def _compare(self, row: Any, step: Any) -> Any:
        from tvm import tirx

        statements: list[Any] = []
        size = emit.bind(tirx.abs(self._at(row, step)), "size", statements)
        better = size > emit.load(self.largest, index(0))
        chosen = [
            emit.store(self.largest, index(0), size),
            emit.store(self.pivot, index(0), row),
        ]
        return [*statements, tirx.IfThenElse(better, emit.sequence(chosen), None)]

    def _swap(self, step: Any, column: Any) -> list[Any]:
        from tvm import tirx

        statements: list[Any] = []
        row = emit.load(self.pivot, index(0))
        upper = emit.bind(self._at(step, column), "upper", statements)
        lower = emit.bind(self._at(row, column), "lower", statements)
        return [
            *statements,
            tirx.BufferStore(self.work, lower, [step, column]),
            tirx.BufferStore(self.work, upper, [row, column]),
        ]

    def _eliminate(self, row: Any, step: Any) -> list[Any]:
        """Of a pivot of 0 nothing is left below, either."""
        from tvm import tirx

        statements: list[Any] = []
        zero = tirx.const(0, self.work.dtype)
        pivot = emit.bind(self._at(step, step), "divisor", statements)
        divisor = tirx.Select(pivot == zero, tirx.const(1, self.work.dtype), pivot)
        factor = emit.bind(self._at(row, step) / divisor, "factor", statements)

        def subtract(column: Any) -> Any:
            value = self._at(row, column) - factor * self._at(step, column)
            return tirx.BufferStore(self.work, value, [row, column])

        return [*statements, emit.between(step + 1, index(self.size), subtract)]


CONVERTERS: dict[str, Converter] = {"Det": _det}

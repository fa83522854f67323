"""Class probabilities out of probabilities of pairs of classes.

Wu, Lin and Weng, "Probability Estimates for Multi-class Classification by Pairwise Coupling" (JMLR
2004), algorithm 2, with the start, the bound on steps and the stopping rule of LIBSVM, which ONNX
Runtime shares. It stops early: answers are those of the step at which it stops.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from edgepack.compiler.frontend.node import Node, constant
from edgepack.compiler.schedules import emit
from edgepack.compiler.schedules.expressions import index

if TYPE_CHECKING:
    import numpy as np

_STEPS = 100
_TOLERANCE = 0.005
"""Divided by the number of classes: the largest gap at which the steps end."""
_CERTAIN = 1e-7
"""No pair is surer than this."""


def probabilities(
    node: Node, scores: Any, chances: tuple[np.ndarray, np.ndarray], classes: int
) -> Any:
    """Float32 [rows, classes] out of ``scores`` [rows, pairs] and the pairs' slopes and offsets."""
    from tvm import te, tirx

    def wins(values: Any, slope: Any, offset: Any) -> Any:
        """The probability that the first class of a pair is the right one."""

        def at(row: Any, pair: Any) -> Any:
            chance = tirx.sigmoid(-(values(row, pair) * slope(pair) + offset(pair)))
            least, most = (tirx.const(v, "float32") for v in (_CERTAIN, 1 - _CERTAIN))
            return tirx.min(tirx.max(chance, least), most)

        return te.compute(values.shape, at)

    first = node.compute(wins, scores, *map(constant, chances))
    quadratic = node.compute(_quadratic, first, constant(pair_numbers(classes)))
    coupled = node.compute(_coupled, quadratic, name="coupling")
    return node.emit(coupled[0])


def _quadratic(chance: Any, table: Any) -> Any:
    """Q [rows, classes, classes] out of the probabilities [rows, pairs]."""
    from tvm import te, tirx

    rows, classes = chance.shape[0], int(table.shape[0])
    other = te.reduce_axis((0, classes), "other")

    def of(row: Any, first: Any, second: Any) -> Any:
        """The probability that ``first`` is right, if one of the two is."""
        value = chance(row, table(first, second))
        return tirx.Select(first < second, value, tirx.const(1, "float32") - value)

    def diagonal(row: Any, i: Any) -> Any:
        loses = of(row, other, i)
        zero = tirx.const(0, "float32")
        return te.sum(tirx.Select(other == i, zero, loses * loses), axis=other)

    sums = te.compute((rows, classes), diagonal, name="diagonal")

    def at(row: Any, i: Any, j: Any) -> Any:
        return tirx.Select(i == j, sums(row, i), -of(row, j, i) * of(row, i, j))

    return te.compute((rows, classes, classes), at)


def pair_numbers(classes: int) -> np.ndarray:
    """[classes, classes]: which pair two classes are; 0 on the diagonal."""
    import numpy as np

    numbers = np.zeros((classes, classes), np.int32)
    first, second = np.triu_indices(classes, 1)
    numbers[first, second] = numbers[second, first] = np.arange(len(first))
    return numbers


def _coupled(quadratic: Any) -> Any:
    """The probabilities p that make p' Q p least, and Q p, each [rows, classes]."""
    from tvm import te

    rows, classes = int(quadratic.shape[0]), int(quadratic.shape[1])

    def body(inputs: list[Any], outputs: list[Any]) -> Any:
        p, product = outputs
        return emit.grid([rows], lambda at: _Coupling(inputs[0], p, product, at[0]).steps(), 1)

    shape = (rows, classes)
    return te.extern([shape, shape], [quadratic], body, name="coupling", dtype=["float32"] * 2)


class _Coupling:
    """The statements for one row."""

    def __init__(self, quadratic: Any, p: Any, product: Any, row: Any) -> None:
        self.quadratic, self.p, self.product, self.row = quadratic, p, product, row
        self.classes = int(p.shape[1])
        self.form = emit.registers(1, "float32", "form")
        self.gap = emit.registers(1, "float32", "gap")

    def steps(self) -> list[Any]:
        """The start, and steps as long as the gap is not small."""
        from tvm import tirx

        start = tirx.const(1 / self.classes, "float32")
        tolerance = tirx.const(_TOLERANCE / self.classes, "float32")

        def while_wide(*statements: Any) -> Any:
            wide = self._get(self.gap) >= tolerance
            return tirx.IfThenElse(wide, emit.sequence(*statements), None)

        def step(_: Any) -> Any:
            update = while_wide(self._each(self._update))
            return while_wide(self._products(), self._measure(), update)

        return [
            *emit.allocate([self.form, self.gap]),
            self._each(lambda i: self._put(self.p, i, start)),
            emit.store(self.gap, index(0), tolerance),
            emit.serial(_STEPS, step),
        ]

    def _each(self, body: Callable[[Any], Any]) -> Any:
        return emit.serial(self.classes, body)

    def _get(self, register: Any) -> Any:
        return emit.load(register, index(0))

    def _at(self, buffer: Any, i: Any) -> Any:
        from tvm import tirx

        return tirx.BufferLoad(buffer, [self.row, i])

    def _put(self, buffer: Any, i: Any, value: Any) -> Any:
        from tvm import tirx

        return tirx.BufferStore(buffer, value, [self.row, i])

    def _entry(self, i: Any, j: Any) -> Any:
        from tvm import tirx

        return tirx.BufferLoad(self.quadratic, [self.row, i, j])

    def _products(self) -> list[Any]:
        """Q p and p' Q p."""
        from tvm import tirx

        zero = tirx.const(0, "float32")

        def line(i: Any) -> list[Any]:
            def add(j: Any) -> Any:
                term = self._entry(i, j) * self._at(self.p, j)
                return self._put(self.product, i, self._at(self.product, i) + term)

            term = self._at(self.p, i) * self._at(self.product, i)
            return [
                self._put(self.product, i, zero),
                self._each(add),
                emit.store(self.form, index(0), self._get(self.form) + term),
            ]

        return [emit.store(self.form, index(0), zero), self._each(line)]

    def _measure(self) -> list[Any]:
        """How far the entries of Q p are from p' Q p, which they equal in the end."""
        from tvm import tirx

        def widen(i: Any) -> Any:
            gap = tirx.abs(self._at(self.product, i) - self._get(self.form))
            return emit.store(self.gap, index(0), tirx.max(self._get(self.gap), gap))

        return [emit.store(self.gap, index(0), tirx.const(0, "float32")), self._each(widen)]

    def _update(self, i: Any) -> list[Any]:
        """Set p[i] to what is best while the others stay, and make the sum 1 again."""
        from tvm import tirx

        statements: list[Any] = []
        one, two = tirx.const(1, "float32"), tirx.const(2, "float32")
        own, product = self._entry(i, i), self._at(self.product, i)
        change = (self._get(self.form) - product) / own
        change = emit.bind(change, "change", statements)
        total = emit.bind(one + change, "total", statements)
        form = self._get(self.form) + change * (change * own + two * product)
        statements += [
            self._put(self.p, i, self._at(self.p, i) + change),
            emit.store(self.form, index(0), form / total / total),
        ]

        def scale(j: Any) -> list[Any]:
            product = self._at(self.product, j) + change * self._entry(i, j)
            return [
                self._put(self.product, j, product / total),
                self._put(self.p, j, self._at(self.p, j) / total),
            ]

        return [*statements, self._each(scale)]

"""Binary heaps in kernels: what sorts, and what keeps the best of many.

A heap lies in arrays that the kernel has, its root at position 0. Everything here writes statements into
the IRBuilder that is open. Loops end whatever the values are: positions only grow, and an order that
NaN makes inconsistent can at worst put elements in another order.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from edgepack.compiler.schedules import emit
from edgepack.compiler.schedules.expressions import index

Entry = Sequence[Any]
"""What stands at one position, an expression for each array."""


class Cell:
    """A variable of a kernel, a number or a vector of some: memory that the compiler keeps in registers."""

    def __init__(self, value: Any) -> None:
        from tvm.script.ir_builder import tirx as T

        dtype, _, lanes = str(value.ty).partition("x")
        self._buffer = T.alloc_buffer((int(lanes or 1),), dtype)
        self._place = emit.lanes_of(index(0), int(lanes or 1))
        self.set(value)

    @property
    def value(self) -> Any:
        """The variable, as an expression."""
        return emit.load(self._buffer, self._place)

    def set(self, value: Any) -> None:
        """Assign to it."""
        store(self._buffer, [self._place], value)


def statements(write: Callable[[], None]) -> Any:
    """The statements that ``write`` writes into an IRBuilder of their own."""
    from tvm.script.ir_builder import IRBuilder
    from tvm.script.ir_builder import tirx as T

    # The builder wants one statement: a loop around them all, of which only the body is taken.
    with IRBuilder() as builder, T.serial(0, index(1)):
        write()
    return builder.get().body


def store(buffer: Any, position: Sequence[Any], value: Any) -> None:
    """Write one element of a buffer."""
    from tvm.script.ir_builder import tirx as T

    T.buffer_store(buffer, value, list(position))


def fill(buffer: Any, shape: Sequence[int]) -> None:
    """Set all elements of a buffer to zero."""
    from tvm import tirx

    with over(shape) as position:
        store(buffer, position, tirx.const(0, str(buffer.dtype)))


@contextmanager
def when(condition: Any) -> Iterator[None]:
    """A block of statements that run only if ``condition`` holds."""
    from tvm.script.ir_builder import tirx as T

    with T.If(condition), T.Then():
        yield


@contextmanager
def over(extents: Sequence[int], *, shared: bool = False) -> Iterator[list[Any]]:
    """Loops over all positions in order; ``shared`` lets threads share the outermost."""
    from tvm.script.ir_builder import tirx as T

    with ExitStack() as stack:
        position = []
        for number, extent in enumerate(extents):
            loop = T.parallel if shared and number == 0 else T.serial
            position.append(stack.enter_context(loop(0, index(extent))))
        yield position


def is_nan(value: Any) -> Any:
    """Whether a value is NaN, which no integer is."""
    from tvm import tirx

    if not str(value.ty).startswith("float"):
        return tirx.const(False, "bool")
    # Not by comparison with itself, which TVM takes for true.
    return tirx.isnan(value)


def ahead(first: Any, second: Any, *, largest: bool) -> Any:
    """Whether ``first`` comes strictly before ``second``, the largest or smallest first, NaN last."""
    from tvm import tirx

    better = tirx.GT(first, second) if largest else tirx.LT(first, second)
    if not str(first.ty).startswith("float"):
        return better
    return tirx.Or(better, tirx.And(is_nan(second), tirx.Not(is_nan(first))))


class Heap(ABC):
    """A heap whose root is the entry that ``above`` puts above all others."""

    @abstractmethod
    def load(self, position: Any) -> Entry:
        """The entry at a position."""

    @abstractmethod
    def save(self, position: Any, entry: Entry) -> None:
        """Put an entry at a position."""

    @abstractmethod
    def above(self, first: Entry, second: Entry) -> Any:
        """Whether ``first`` has to be nearer to the root; may write statements that find out."""

    def sink(self, entry: Entry, start: Any, size: Any) -> None:
        """Put an entry at ``start``, or below it where it belongs, in a heap of ``size`` entries."""
        from tvm import tirx
        from tvm.script.ir_builder import tirx as T

        moving = [Cell(value) for value in entry]
        hole, child = Cell(start), Cell(start * 2 + 1)
        with T.While(child.value < size):
            # A lone child is its own brother: nothing beyond the heap is read.
            brother = tirx.min(child.value + 1, size - 1)
            with when(self.above(self.load(brother), self.load(child.value))):
                child.set(brother)
            upper = self.load(child.value)
            with T.If(self.above(upper, [cell.value for cell in moving])):
                with T.Then():
                    self.save(hole.value, upper)
                    hole.set(child.value)
                    child.set(child.value * 2 + 1)
                with T.Else():
                    child.set(size)
        self.save(hole.value, [cell.value for cell in moving])

    def build(self, size: Any) -> None:
        """Make a heap of the first ``size`` entries, which are in any order."""
        from tvm import tirx
        from tvm.script.ir_builder import tirx as T

        half = tirx.FloorDiv(size, index(2))
        with T.serial(0, half) as step:
            start = half - 1 - step
            self.sink(self.load(start), start, size)

    def sort(self, size: Any) -> None:
        """Turn a heap of ``size`` entries into a list whose last entry was the root."""
        from tvm import tirx
        from tvm.script.ir_builder import tirx as T

        with T.serial(0, tirx.max(size - 1, index(0))) as step:
            self.remove(size - 1 - step, keep=True)

    def remove(self, last: Any, *, keep: bool) -> None:
        """Take the root out of a heap whose last entry is at ``last``; ``keep`` puts it there."""
        root = [Cell(value) for value in self.load(index(0))]
        moving = [Cell(value) for value in self.load(last)]
        if keep:
            self.save(last, [cell.value for cell in root])
        with when(last > 0):
            self.sink([cell.value for cell in moving], index(0), last)


class RankedHeap(Heap):
    """Values and where they come from; equal values rank by place, the first before the others."""

    def __init__(
        self, values: Any, places: Any, prefix: Sequence[Any], suffix: Sequence[Any], *,
        largest: bool, best_on_top: bool,
    ) -> None:  # fmt: skip
        """``values`` and ``places`` are buffers; positions are between ``prefix`` and ``suffix``."""
        self.values, self.places = values, places
        self.prefix, self.suffix = list(prefix), list(suffix)
        self.largest, self.best_on_top = largest, best_on_top

    def at(self, position: Any) -> list[Any]:
        """The indices of a position."""
        return [*self.prefix, position, *self.suffix]

    def load(self, position: Any) -> Entry:
        """Value and place at a position."""
        from tvm import tirx

        buffers = (self.values, self.places)
        return [tirx.BufferLoad(buffer, self.at(position)) for buffer in buffers]

    def save(self, position: Any, entry: Entry) -> None:
        """Put a value and its place at a position."""
        for buffer, value in zip((self.values, self.places), entry, strict=True):
            store(buffer, self.at(position), value)

    def above(self, first: Entry, second: Entry) -> Any:
        """Whether ``first`` is better, or worse where the worst is on top."""
        from tvm import tirx

        if not self.best_on_top:
            first, second = second, first
        better = ahead(first[0], second[0], largest=self.largest)
        # Not "neither is ahead": TVM makes <= of the negation of >, which NaN does not bear.
        tie = tirx.Or(tirx.EQ(first[0], second[0]), tirx.And(is_nan(first[0]), is_nan(second[0])))
        return tirx.Or(better, tirx.And(tie, first[1] < second[1]))

"""BoundedUnique: elements, or slices along an axis, that differ, up to a bound, and how many there are.

The places are sorted by what is there; equal ones then lie side by side, the first place first. NaN
equals NaN and comes last.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from edgepack.compiler.frontend.converters.heaps import (
    Cell,
    Entry,
    Heap,
    ahead,
    fill,
    over,
    statements,
    store,
    when,
)
from edgepack.compiler.frontend.converters.values import cast, reshaped, working_type
from edgepack.compiler.frontend.node import Converter, Node, constant
from edgepack.compiler.schedules.expressions import index

DOMAIN = "edgepack"


def _unique(node: Node) -> list[Any]:
    from tvm import relax

    shape, dtype = node.shape(), node.dtype()
    axis = node.attributes.get("axis")
    bound = int(node.attributes["bound"])
    lines = [1, math.prod(shape), 1]
    if axis is not None:
        lines = [math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])]
    data = cast(node.inputs[0], "uint8" if dtype == "bool" else working_type(dtype))
    flat = node.emit(reshaped(node.emit(data), lines))
    rows = node.inputs[1] if node.has(1) else constant(lines[1], "int64")
    is_sorted = bool(node.attributes["sorted"])
    found = node.compute(_distinct, flat, rows, bound, is_sorted)
    values, *others = (node.emit(relax.TupleGetItem(found, i)) for i in range(5))
    values = reshaped(values, list(node.outputs[0].shape))
    return [cast(node.emit(values), dtype), *others]


def _distinct(data: Any, rows: Any, bound: int, is_sorted: bool) -> Any:
    """Of [outer, length, inner]: slices, first places, the slice of each place, how often, how many.

    The other outputs are memory to work in.
    """
    from tvm import te

    outer, length, inner = (int(extent) for extent in data.shape)

    def body(inputs: list[Any], outputs: list[Any]) -> Any:
        return statements(_Unique(inputs, outputs, [outer, length, inner], bound, is_sorted).write)

    shapes = [(outer, bound, inner), (bound,), (length,), (bound,), (), (length,), (length,)]
    dtypes = [str(data.dtype), *["int64"] * (len(shapes) - 1)]
    return te.extern(shapes, [data, rows], body, name="unique", dtype=dtypes)


class _Places(Heap):
    """A heap of places in the data, the last in order on top."""

    def __init__(self, data: Any, order: Any, shape: Sequence[int]) -> None:
        self.data, self.order, self.shape = data, order, shape

    def load(self, position: Any) -> Entry:
        from tvm import tirx

        return [tirx.BufferLoad(self.order, [position])]

    def save(self, position: Any, entry: Entry) -> None:
        store(self.order, [position], entry[0])

    def above(self, first: Entry, second: Entry) -> Any:
        from tvm import tirx

        sign = Cell(self.compared(first[0], second[0]))
        later = tirx.And(tirx.EQ(sign.value, index(0)), first[0] > second[0])
        return tirx.Or(sign.value > 0, later)

    def compared(self, first: Any, second: Any) -> Any:
        """Below, at or above 0 as the slice at ``first`` comes before, equals or follows the other."""
        from tvm import tirx
        from tvm.script.ir_builder import tirx as T

        outer, _, inner = self.shape
        sign, step = Cell(index(0)), Cell(index(0))
        with T.While(step.value < outer * inner):
            line, lane = (
                tirx.FloorDiv(step.value, index(inner)),
                tirx.FloorMod(step.value, index(inner)),
            )
            a, b = (
                Cell(tirx.BufferLoad(self.data, [line, place, lane])).value
                for place in (first, second)
            )
            step.set(step.value + 1)
            for one, other, number in ((a, b, -1), (b, a, 1)):
                with when(ahead(one, other, largest=False)):
                    sign.set(index(number))
                    step.set(index(outer * inner))
        return sign.value


class _Unique:
    """The statements of one kernel."""

    def __init__(
        self, inputs: Any, outputs: Any, shape: Sequence[int], bound: int, is_sorted: bool
    ) -> None:
        self.data, self.given_rows = inputs
        self.values, self.firsts, self.inverse, self.counts, self.number, self.order, self.group = (
            outputs
        )
        self.shape, self.bound, self.is_sorted = shape, bound, is_sorted
        self.heap = _Places(self.data, self.order, shape)

    def write(self) -> None:
        """All of them: sort, then go through places in order and give each the number of its group."""
        from tvm import tirx
        from tvm.script.ir_builder import tirx as T

        outer, length, inner = self.shape
        fill(self.values, [outer, self.bound, inner])
        for buffer, extent in ((self.firsts, self.bound), (self.counts, self.bound)):
            fill(buffer, [extent])
        fill(self.inverse, [length])
        given = tirx.BufferLoad(self.given_rows, [])
        rows = Cell(tirx.max(tirx.min(given, index(length)), index(0))).value
        with T.serial(0, rows) as place:
            store(self.order, [place], place)
        self.heap.build(rows)
        self.heap.sort(rows)
        groups = Cell(index(0))
        self._lead(rows, groups)
        if not self.is_sorted:
            groups.set(index(0))
        self._number(rows, groups)
        store(self.number, [], tirx.min(groups.value, index(self.bound)))

    def _lead(self, rows: Any, groups: Cell) -> None:
        """Let ``inverse`` hold the first place of each place's group, and number groups in order."""
        from tvm import tirx
        from tvm.script.ir_builder import tirx as T

        leader = Cell(index(0))
        with T.serial(0, rows) as step:
            place = Cell(tirx.BufferLoad(self.order, [step])).value
            begins = Cell(tirx.Cast("int64", tirx.EQ(step, index(0))))
            with when(step > 0):
                differs = tirx.NE(self.heap.compared(leader.value, place), index(0))
                begins.set(tirx.Cast("int64", differs))
            with when(begins.value > 0):
                leader.set(place)
                store(self.group, [place], groups.value)
                groups.set(groups.value + 1)
            store(self.inverse, [place], leader.value)

    def _number(self, rows: Any, groups: Cell) -> None:
        """Write groups as their first places come, and each place's group."""
        from tvm import tirx
        from tvm.script.ir_builder import tirx as T

        outer, _, inner = self.shape
        with T.serial(0, rows) as place:
            leader = Cell(tirx.BufferLoad(self.inverse, [place])).value
            leads = tirx.EQ(leader, place)
            if not self.is_sorted:
                with when(leads):
                    store(self.group, [place], groups.value)
                    groups.set(groups.value + 1)
            group = Cell(tirx.BufferLoad(self.group, [leader])).value
            with when(group < self.bound):
                with when(leads):
                    store(self.firsts, [group], place)
                    with over([outer, inner]) as (line, lane):
                        value = tirx.BufferLoad(self.data, [line, place, lane])
                        store(self.values, [line, group, lane], value)
                count = tirx.BufferLoad(self.counts, [group])
                store(self.counts, [group], count + 1)
            store(self.inverse, [place], tirx.min(group, index(self.bound - 1)))


CONVERTERS: dict[str, Converter] = {"BoundedUnique": _unique}

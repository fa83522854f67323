"""BoundedNonMaxSuppression: boxes by falling score, without those that overlap a better one.

As in ONNX Runtime: entry by entry of the batch and class by class; of equal scores the first box first;
a box goes if its overlap with one that was taken is above the threshold; boxes without area overlap
nothing. A heap gives the boxes in order, as far as they are asked for.
"""

from __future__ import annotations

from typing import Any

from edgepack.compiler.frontend.converters.heaps import (
    Cell,
    RankedHeap,
    fill,
    over,
    statements,
    store,
    when,
)
from edgepack.compiler.frontend.converters.values import cast
from edgepack.compiler.frontend.node import Converter, Node, constant
from edgepack.compiler.schedules.expressions import index

DOMAIN = "edgepack"

_MOST, _OVERLAP, _SCORE, _ROWS = 2, 3, 4, 5
"""Inputs that may be missing."""


def _non_max_suppression(node: Node) -> list[Any]:
    from tvm import relax

    boxes, scores = (node.emit(cast(value, "float32")) for value in node.inputs[:2])
    missing = {_MOST: (0, "int64"), _OVERLAP: (0.0, "float32"), _SCORE: (0.0, "float32")}
    missing[_ROWS] = (node.shape(0)[1], "int64")
    scalars = [
        relax.op.reshape(cast(node.inputs[i], dtype), []) if node.has(i) else constant(value, dtype)
        for i, (value, dtype) in missing.items()
    ]
    found = node.compute(
        _selected,
        boxes,
        scores,
        *(node.emit(scalar) for scalar in scalars),
        int(node.attributes["bound"]),
        bool(node.attributes["center_point_box"]),
        node.has(_SCORE),
    )
    return [relax.TupleGetItem(found, i) for i in (0, 1)]


def _selected(
    boxes: Any, scores: Any, most: Any, overlap: Any, score: Any, rows: Any,
    bound: int, by_center: bool, has_threshold: bool,
) -> Any:  # fmt: skip
    """Batch entry, class and box of each, [bound, 3], and their number; then memory to work in."""
    from tvm import te

    batch, classes, length = (int(extent) for extent in scores.shape)

    def body(inputs: list[Any], outputs: list[Any]) -> Any:
        kernel = _Suppression(inputs, outputs, bound, by_center, has_threshold)
        return statements(lambda: kernel.write(batch, classes, length))

    return te.extern(
        [(bound, 3), (), (length,), (length,)],
        [boxes, scores, most, overlap, score, rows],
        body,
        name="non_max_suppression",
        dtype=["int64", "int64", "float32", "int64"],
    )


class _Suppression:
    """The statements of one kernel."""

    def __init__(
        self, inputs: Any, outputs: Any, bound: int, by_center: bool, has_threshold: bool
    ) -> None:
        self.boxes, self.scores, *self.scalars = inputs
        self.chosen, self.number, values, places = outputs
        self.heap = RankedHeap(values, places, [], [], largest=True, best_on_top=True)
        self.bound, self.by_center, self.has_threshold = bound, by_center, has_threshold

    def write(self, batch: int, classes: int, length: int) -> None:
        """Class by class, until there are as many rows as fit."""
        from tvm import tirx
        from tvm.script.ir_builder import tirx as T

        most, overlap, score, given = (tirx.BufferLoad(scalar, []) for scalar in self.scalars)
        fill(self.chosen, [self.bound, 3])
        rows = Cell(tirx.max(tirx.min(given, index(length)), index(0))).value
        total = Cell(index(0))
        with over([batch, classes]) as (entry, kind):
            size = self._candidates(entry, kind, rows, score)
            self.heap.build(size.value)
            first = Cell(total.value).value
            wanted = Cell(tirx.min(first + tirx.min(most, index(self.bound)), index(self.bound)))
            with T.While(tirx.And(size.value > 0, total.value < wanted.value)):
                place = Cell(self.heap.load(index(0))[1]).value
                size.set(size.value - 1)
                self.heap.remove(size.value, keep=False)
                self._choose(entry, kind, place, first, total, overlap)
        store(self.number, [], total.value)

    def _candidates(self, entry: Any, kind: Any, rows: Any, threshold: Any) -> Cell:
        """Put the boxes whose score is above the threshold into the heap's arrays; their number."""
        from tvm import tirx
        from tvm.script.ir_builder import tirx as T

        size = Cell(index(0))
        with T.serial(0, rows) as place:
            value = Cell(tirx.BufferLoad(self.scores, [entry, kind, place])).value
            passes = value > threshold if self.has_threshold else tirx.const(True, "bool")
            with when(passes):
                self.heap.save(size.value, [value, place])
                size.set(size.value + 1)
        return size

    def _choose(
        self, entry: Any, kind: Any, place: Any, first: Any, total: Cell, overlap: Any
    ) -> None:
        """Take a box unless it overlaps one of its class that was taken, from row ``first`` on."""
        from tvm import tirx
        from tvm.script.ir_builder import tirx as T

        box = self._corners(entry, place)
        row, is_free = Cell(first), Cell(index(1))
        with T.While(tirx.And(row.value < total.value, is_free.value > 0)):
            other = self._corners(entry, tirx.BufferLoad(self.chosen, [row.value, index(2)]))
            with when(_overlap_above(box, other, overlap)):
                is_free.set(index(0))
            row.set(row.value + 1)
        with when(is_free.value > 0):
            for column, value in enumerate((entry, kind, place)):
                store(self.chosen, [total.value, index(column)], value)
            total.set(total.value + 1)

    def _corners(self, entry: Any, place: Any) -> list[Any]:
        """Lowest and highest y, lowest and highest x of a box."""
        from tvm import tirx

        raw = [Cell(tirx.BufferLoad(self.boxes, [entry, place, index(i)])).value for i in range(4)]
        if self.by_center:
            x, y, width, height = raw
            half_width, half_height = width / 2.0, height / 2.0
            ends = [y - half_height, y + half_height, x - half_width, x + half_width]
        else:
            ends = [
                tirx.min(raw[0], raw[2]), tirx.max(raw[0], raw[2]),
                tirx.min(raw[1], raw[3]), tirx.max(raw[1], raw[3]),
            ]  # fmt: skip
        return [Cell(end).value for end in ends]


def _overlap_above(first: list[Any], second: list[Any], threshold: Any) -> Any:
    """Whether the common part of two boxes is more than ``threshold`` of what they cover together."""
    from tvm import tirx

    def area(box: list[Any]) -> Any:
        return (box[1] - box[0]) * (box[3] - box[2])

    zero = tirx.const(0.0, "float32")
    lows = [Cell(tirx.max(first[i], second[i])).value for i in (0, 2)]
    highs = [Cell(tirx.min(first[i], second[i])).value for i in (1, 3)]
    common = Cell((highs[0] - lows[0]) * (highs[1] - lows[1])).value
    areas = [Cell(area(box)).value for box in (first, second)]
    union = Cell(areas[0] + areas[1] - common).value
    meet = tirx.all(highs[0] > lows[0], highs[1] > lows[1], common > zero)
    real = tirx.all(areas[0] > zero, areas[1] > zero, union > zero)
    return tirx.all(meet, real, common / union > threshold)


CONVERTERS: dict[str, Converter] = {"BoundedNonMaxSuppression": _non_max_suppression}

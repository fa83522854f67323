"""``Loop`` goes away: its body stands once for each iteration.

The iteration's number is then a constant, so that what the body computes of it folds, shapes first of
all. Where data end the loop early, every iteration is computed up to the greatest number, and a
selection keeps the carried values as they were when it ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgepack.errors import ModelError
from edgepack.importers.bounds import bound_of, key_of
from edgepack.importers.graphs import all_graphs, node_label
from edgepack.importers.own_operators import DOMAIN, ROWS, declare
from edgepack.importers.passes.branches import SELECT_PREFIX, WHERE_OPSET
from edgepack.importers.passes.editor import GraphEditor
from edgepack.importers.passes.inlining import inline, share_constants, stack
from edgepack.importers.passes.trip_counts import (
    Loop,
    greatest_count,
    rank_of,
    stays_true,
    trip_count,
)

if TYPE_CHECKING:
    import onnx

MAX_NODES = 20_000
"""The most that unrolling one loop may add: lowering so many takes minutes."""


def unroll_loops(model: onnx.ModelProto) -> bool:
    """Unroll each Loop whose number of iterations is known. Raises ModelError for too many."""
    editor = GraphEditor(model)

    def rewrite(node: onnx.NodeProto) -> bool:
        loop = Loop.of(node)
        if loop is None:
            return False
        trips = trip_count(model, editor, loop)
        if trips is None or (trips == 0 and len(loop.body.output) > 1 + len(loop.carried)):
            return False
        refuse_too_many(node, loop.body, trips)
        _Unrolling(editor=editor, loop=loop).run(trips)
        return True

    return editor.replace(rewrite)


def select_loops(model: onnx.ModelProto) -> bool:
    """Unroll each other Loop that states a greatest number of iterations. Raises ModelError.

    What the loop carries must keep its shape; static_shapes.py checks that.
    """
    editor = GraphEditor(model)

    def rewrite(node: onnx.NodeProto) -> bool:
        loop = Loop.of(node)
        most = None if loop is None else greatest_count(editor, loop)
        # What is far too much is no bound that anybody meant.
        if loop is None or not most or most > MAX_NODES or editor.opset < WHERE_OPSET:
            return False
        _unroll_stopping(editor, loop, most)
        return True

    return _with_own_operators(model, editor.replace(rewrite))


def bound_loops(model: onnx.ModelProto, bounds: Mapping[str, int]) -> set[str]:
    """Unroll, as select_loops does, each other Loop that has a bound; the names of those bounds.

    Raises ModelError.
    """
    editor = GraphEditor(model)
    taken: set[str] = set()

    def rewrite(node: onnx.NodeProto) -> bool:
        loop, most = Loop.of(node), bound_of(node, bounds)
        if loop is None or most is None or editor.opset < WHERE_OPSET:
            return False
        _unroll_stopping(editor, loop, most)
        taken.add(key_of(node, bounds) or "")
        return True

    _with_own_operators(model, editor.replace(rewrite))
    return taken


def _unroll_stopping(editor: GraphEditor, loop: Loop, most: int) -> None:
    refuse_too_many(loop.node, loop.body, most)
    _Stopping(editor=editor, loop=loop).run(most)


def _with_own_operators(model: onnx.ModelProto, changed: bool) -> bool:
    if changed:
        declare(model)
    return changed


def refuse_too_many(node: onnx.NodeProto, body: onnx.GraphProto, copies: int) -> None:
    """Raise ModelError where so many copies of a body are too many nodes."""
    nodes = copies * sum(len(graph.node) for graph in all_graphs(body))
    if nodes > MAX_NODES:
        raise ModelError(
            f"{node_label(node)} would become {nodes} nodes, {copies} times its body;"
            f" the limit is {MAX_NODES}",
            "export the model with fewer iterations, or with operators on whole tensors instead",
        )


@dataclass(kw_only=True)
class _Unrolling:
    """One Loop on its way, whose number of iterations is known."""

    editor: GraphEditor
    loop: Loop
    stacks: list[list[str]] = field(default_factory=list)
    """Scan outputs: the values of all iterations."""

    def run(self, trips: int) -> None:
        """Emit the iterations and the loop's outputs."""
        loop = self.loop
        count = len(loop.carried)
        shared = share_constants(self.editor, loop.body)
        self.stacks = [[] for _ in loop.body.output[1 + count :]]
        state = list(loop.carried)
        for trip in range(trips):
            results = self.iteration(trip, shared, state)
            state = self.next_state(trip, state, results[0], results[1 : 1 + count])
            for values, result in zip(self.stacks, results[1 + count :], strict=True):
                values.append(result)
        for value, output in zip(state, loop.node.output, strict=False):
            if output:
                self.editor.emit("Identity", [value], output)
        for values, output in zip(self.stacks, loop.node.output[count:], strict=True):
            if output:
                self.stack(values, output)

    def iteration(self, trip: int, shared: Mapping[str, str], state: list[str]) -> list[str]:
        """Emit the body once; the names of its outputs."""
        import numpy as np

        number, condition, *carried = self.loop.body.input
        constants = {
            number.name: np.full([1] * rank_of(number), trip, np.int64),
            condition.name: np.full([1] * rank_of(condition), True),
        }
        values = {
            **shared,
            **{name: self.editor.constant(name, value) for name, value in constants.items()},
            **dict(zip([value.name for value in carried], state, strict=True)),
        }
        return inline(self.editor, self.loop.body, values, f"{trip}/")

    def next_state(
        self, trip: int, state: list[str], condition: str, results: list[str]
    ) -> list[str]:
        """The carried values after an iteration."""
        return results

    def stack(self, values: list[str], output: str) -> None:
        """Emit a scan output."""
        stack(self.editor, values, 0, output)


@dataclass(kw_only=True)
class _Stopping(_Unrolling):
    """One Loop that data may end before the last iteration."""

    running: str = ""
    """Whether the iteration takes place, a scalar."""
    count: str = ""
    """How many iterations took place, an int64 scalar."""
    ends: bool = True
    """Whether the body's condition may end it."""

    def run(self, trips: int) -> None:
        import numpy as np

        editor, loop = self.editor, self.loop
        self.ends = not stays_true(editor, loop)
        self.running = editor.constant("running", np.array(True))
        if loop.condition:
            self.running = editor.reshape(loop.condition, [])
        if loop.limit:
            self.running = editor.emit("And", [self.running, self.more_than(0)])
        self.count = editor.emit("Cast", [self.running], to=_INT64)
        super().run(trips)

    def more_than(self, trip: int) -> str:
        """Whether the loop's own greatest number is above ``trip``."""
        import numpy as np

        limit = self.editor.reshape(self.loop.limit, [])
        number = self.editor.constant("trip", np.array(trip, np.int64))
        return self.editor.emit("Greater", [limit, number])

    def next_state(
        self, trip: int, state: list[str], condition: str, results: list[str]
    ) -> list[str]:
        editor = self.editor
        name = self.loop.node.name or self.loop.node.output[0]
        kept = []
        for i, (new, old) in enumerate(zip(results, state, strict=True)):
            kept.append(editor.fresh(f"{trip}/carried"))
            editor.emit_many(
                "Where",
                [self.running, new, old],
                [kept[-1]],
                name=f"{SELECT_PREFIX}Loop/{name}/{trip}/{i}",
            )
        if self.ends:
            going_on = editor.reshape(condition, [])
            self.running = editor.emit("And", [self.running, going_on])
        if self.loop.limit:
            self.running = editor.emit("And", [self.running, self.more_than(trip + 1)])
        self.last = self.count
        self.count = editor.emit(
            "Add", [self.count, editor.emit("Cast", [self.running], to=_INT64)]
        )
        return kept

    def stack(self, values: list[str], output: str) -> None:
        whole = self.editor.fresh("stack")
        stack(self.editor, values, 0, whole)
        self.editor.emit_many(
            ROWS, [whole, self.last], [output], domain=DOMAIN, name=self.loop.node.name
        )


_INT64 = 7
"""onnx.TensorProto.INT64."""

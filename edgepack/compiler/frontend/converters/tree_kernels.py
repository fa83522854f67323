"""The loops of tree ensembles: which leaf each tree ends in, and what the leaves add up to.

    for blocks of trees, for rows (shared by threads):
        for steps:  for trees of the block:  node = x[feature] <= threshold ? child : other child

The trees of a block do not wait for one another, and no step is a branch that a core could guess
wrongly. Sums run tree by tree, in the model's order, as in ONNX Runtime: a vote that ties there
ties here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgepack.compiler.frontend.converters.tree_nodes import WORDS
from edgepack.compiler.schedules import emit
from edgepack.compiler.schedules.expressions import index

_SHARED_STEPS = 20_000
"""Fewer steps, of about a nanosecond each, are not worth sharing."""
_THREADS = 4
"""Loops are cut for so many threads; with fewer, each has more parts."""


def leaves(x: Any, words: Any, roots: Any, depths: Any, tracks_missing: bool, steps: int) -> Any:
    """What the leaves bring back, [rows, trees]: the second word of each.

    ``x`` is [rows, features] of the type of the thresholds. ``steps`` is how many there are in all.
    """
    from tvm import te

    rows, blocks, block = (int(extent) for extent in (x.shape[0], *roots.shape))

    def body(inputs: list[Any], outputs: list[Any]) -> Any:
        walk = _Walk(inputs, outputs[0], tracks_missing)
        return emit.grid([blocks, rows], walk.block, _threads(steps))

    shape, dtype = (rows, blocks * block), str(words.dtype)
    return te.extern(shape, [x, words, roots, depths], body, name="leaves", dtype=dtype)


def _threads(work: int) -> int:
    return _THREADS if work >= _SHARED_STEPS else 1


class _Walk:
    """The statements for one row and one block of trees."""

    def __init__(self, inputs: list[Any], out: Any, tracks_missing: bool) -> None:
        self.x, self.words, self.roots, self.depths = inputs
        self.out = out
        self.tracks_missing = tracks_missing

    def block(self, position: list[Any]) -> list[Any]:
        """Walk the trees of block ``position[0]`` for row ``position[1]``."""
        from tvm import tirx

        block, row = position
        size = int(self.roots.shape[1])
        nodes = [emit.registers(1, "int32", "node") for _ in range(size)]
        statements = emit.allocate(nodes)
        for tree, node in enumerate(nodes):
            root = tirx.BufferLoad(self.roots, [block, index(tree)])
            statements.append(emit.store(node, index(0), root))
        depth = tirx.Cast("int64", emit.load(self.depths, block))

        def step(_: Any) -> list[Any]:
            moves: list[Any] = []
            for node in nodes:
                at = emit.bind(self._at(node), "at", moves)
                moves.append(emit.store(node, index(0), self._child(row, at, moves)))
            return moves

        statements.append(emit.between(index(0), depth, step))
        for tree, node in enumerate(nodes):
            place = [row, block * index(size) + index(tree)]
            statements.append(tirx.BufferStore(self.out, self._word(self._at(node), 1), place))
        return statements

    def _at(self, node: Any) -> Any:
        from tvm import tirx

        return tirx.Cast("int64", emit.load(node, index(0)))

    def _word(self, at: Any, number: int) -> Any:
        return emit.load(self.words, at + index(number))

    def _child(self, row: Any, at: Any, statements: list[Any]) -> Any:
        """Where the walk goes from the node at word ``at``."""
        from tvm import tirx

        first = emit.bind(self._word(at, 0), "first", statements)
        one = tirx.const(1, first.ty)
        feature = first >> one if self.tracks_missing else first
        value = tirx.BufferLoad(self.x, [row, tirx.Cast("int64", feature)])
        value = emit.bind(value, "value", statements)
        goes = value <= tirx.reinterpret(self.x.dtype, self._word(at, 1))
        if self.tracks_missing:
            goes = tirx.Or(goes, tirx.And(tirx.isnan(value), (first & one) == one))
        child = tirx.Select(goes, self._word(at, 2), self._word(at, WORDS - 1))
        return tirx.Cast("int32", child)


Combine = Callable[[Any, Any], Any]
"""How a vote joins those before it: sum, minimum or maximum."""


def add(total: Any, vote: Any) -> Any:
    """SUM and AVERAGE."""
    return total + vote


def smaller(total: Any, vote: Any) -> Any:
    """MIN."""
    from tvm import tirx

    return tirx.Select(vote < total, vote, total)


def larger(total: Any, vote: Any) -> Any:
    """MAX."""
    from tvm import tirx

    return tirx.Select(vote > total, vote, total)


def single_scores(weights: Any, trees: int, combine: Combine, dtype: str) -> Any:
    """Scores [rows, 1] out of ``weights`` [rows, trees]: the bits of each leaf's only weight."""
    from tvm import te, tirx

    rows = int(weights.shape[0])

    def body(inputs: list[Any], outputs: list[Any]) -> Any:
        def row(position: list[Any]) -> list[Any]:
            (at,) = position
            total = emit.registers(1, dtype, "total")

            def vote(tree: Any) -> Any:
                return tirx.reinterpret(dtype, tirx.BufferLoad(inputs[0], [at, tree]))

            def join(tree: Any) -> Any:
                return emit.store(total, index(0), combine(emit.load(total, index(0)), vote(tree)))

            return [
                *emit.allocate([total]),
                emit.store(total, index(0), vote(index(0))),
                emit.between(index(1), index(trees), join),
                tirx.BufferStore(outputs[0], emit.load(total, index(0)), [at, index(0)]),
            ]

        return emit.grid([rows], row, _threads(rows * trees))

    return te.extern((rows, 1), [weights], body, name="scores", dtype=dtype)


def dense_scores(leaf: Any, weights: Any, trees: int, combine: Combine) -> Any:
    """Scores [rows, targets] where every leaf has a weight for every target.

    ``leaf`` [rows, trees] are rows of ``weights`` [leaves, targets].
    """
    from tvm import te, tirx

    rows, targets = int(leaf.shape[0]), int(weights.shape[1])

    def body(inputs: list[Any], outputs: list[Any]) -> Any:
        def row(position: list[Any]) -> list[Any]:
            (at,) = position

            def tree_by_tree(tree: Any, join: Callable[[Any, Any], Any]) -> list[Any]:
                statements: list[Any] = []
                ended = tirx.Cast("int64", tirx.BufferLoad(inputs[0], [at, tree]))
                ended = emit.bind(ended, "ended", statements)

                def target(number: Any) -> Any:
                    total = tirx.BufferLoad(outputs[0], [at, number])
                    vote = tirx.BufferLoad(inputs[1], [ended, number])
                    return tirx.BufferStore(outputs[0], join(total, vote), [at, number])

                return [*statements, emit.serial(targets, target)]

            return [
                *tree_by_tree(index(0), lambda _, vote: vote),
                emit.between(index(1), index(trees), lambda tree: tree_by_tree(tree, combine)),
            ]

        return emit.grid([rows], row, _threads(rows * trees * targets))

    shape = (rows, targets)
    return te.extern(shape, [leaf, weights], body, name="scores", dtype=str(weights.dtype))


def sparse_scores(
    leaf: Any, starts: Any, target: Any, weight: Any, trees: int, targets: int, combine: Combine
) -> Any:
    """Scores [rows, targets], 0 where no leaf has a weight, and uint8 1 where one has.

    The weights of leaf i, and the targets that they are for, are those from starts[i] to starts[i + 1].
    """
    from tvm import te

    rows = int(leaf.shape[0])

    def body(inputs: list[Any], outputs: list[Any]) -> Any:
        count = _SparseCount(inputs, outputs, combine)
        return emit.grid(
            [rows], lambda at: count.row(at[0], trees, targets), _threads(rows * trees)
        )

    return te.extern(
        [(rows, targets), (rows, targets)],
        [leaf, starts, target, weight],
        body,
        name="scores",
        dtype=[str(weight.dtype), "uint8"],
    )


class _SparseCount:
    """The statements for one row of sparse_scores."""

    def __init__(self, inputs: list[Any], outputs: list[Any], combine: Combine) -> None:
        self.leaf, self.starts, self.target, self.weight = inputs
        self.score, self.scored = outputs
        self.combine = combine

    def row(self, at: Any, trees: int, targets: int) -> list[Any]:
        """Clear the row and count the votes of its leaves."""
        from tvm import tirx

        def clear(number: Any) -> list[Any]:
            return [
                tirx.BufferStore(self.score, tirx.const(0, self.weight.dtype), [at, number]),
                tirx.BufferStore(self.scored, tirx.const(0, "uint8"), [at, number]),
            ]

        return [
            emit.serial(targets, clear),
            emit.serial(trees, lambda tree: self._tree(at, tree)),
        ]

    def _tree(self, at: Any, tree: Any) -> list[Any]:
        from tvm import tirx

        statements: list[Any] = []
        ended = tirx.Cast("int64", tirx.BufferLoad(self.leaf, [at, tree]))
        ended = emit.bind(ended, "ended", statements)
        first, stop = (
            tirx.Cast("int64", emit.load(self.starts, ended + index(end))) for end in (0, 1)
        )
        return [*statements, emit.between(first, stop, lambda number: self._vote(at, number))]

    def _vote(self, at: Any, number: Any) -> list[Any]:
        from tvm import tirx

        statements: list[Any] = []
        target = tirx.Cast("int64", emit.load(self.target, number))
        place = [at, emit.bind(target, "target", statements)]
        vote = emit.bind(emit.load(self.weight, number), "vote", statements)
        joined = self.combine(tirx.BufferLoad(self.score, place), vote)
        is_first = tirx.BufferLoad(self.scored, place) == tirx.const(0, "uint8")
        return [
            *statements,
            tirx.BufferStore(self.score, tirx.Select(is_first, vote, joined), place),
            tirx.BufferStore(self.scored, tirx.const(1, "uint8"), place),
        ]

"""From trees to scores: which of the kernels counts their votes, and from which tables."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from edgepack.compiler.frontend.converters import tree_kernels
from edgepack.compiler.frontend.converters.class_scores import feature_rows
from edgepack.compiler.frontend.converters.tree_attributes import LEAF, Trees
from edgepack.compiler.frontend.converters.tree_nodes import (
    Layout,
    checked_order,
    comparisons,
    layout,
)
from edgepack.compiler.frontend.node import Node, constant, shape_of

if TYPE_CHECKING:
    import numpy as np

AGGREGATES = ("AVERAGE", "SUM", "MIN", "MAX")
"""Values of aggregate_function; TreeEnsemble has their numbers."""
_COMBINE: dict[str, tree_kernels.Combine] = {
    "AVERAGE": tree_kernels.add,
    "SUM": tree_kernels.add,
    "MIN": tree_kernels.smaller,
    "MAX": tree_kernels.larger,
}


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What the leaves add up to: Relax tensors [rows, targets]."""

    values: Any
    """In the type of the thresholds; 0 where no leaf had a weight. AVERAGE is not divided yet."""
    scored: Any
    """uint8, 0 where no leaf had a weight; None where all have."""


def scores(node: Node, trees: Trees, aggregate: str) -> Scores:
    """Walk the trees and count their votes. Raises ModelError for trees that cannot be walked."""
    import numpy as np

    dtype = str(trees.threshold.dtype)
    rows = feature_rows(node, dtype)
    trees = comparisons(trees)
    order = checked_order(node, trees, shape_of(rows)[1])
    leaf_nodes = order.nodes[trees.mode[order.nodes] == LEAF]
    number = np.full(len(trees.mode), -1)
    number[leaf_nodes] = np.arange(len(leaf_nodes))
    ballots = _ballots(trees, number, len(leaf_nodes))
    targets, combine = trees.votes.targets, _COMBINE[aggregate]
    single = targets == 1 and ballots.is_dense
    if single:
        brought = np.zeros(len(trees.mode), np.int64)
        brought[leaf_nodes] = ballots.weight.view(f"i{ballots.weight.itemsize}")
    tables = layout(trees, order, brought if single else number)
    ended = _ended(node, rows, tables, int(order.heights.sum()))
    count = len(trees.roots)
    if single:
        kernel = partial(tree_kernels.single_scores, trees=count, combine=combine, dtype=dtype)
        return Scores(values=node.compute(kernel, ended), scored=None)
    weights = constant(ballots.weight, dtype)
    if ballots.is_dense:
        weights = constant(ballots.weight.reshape(-1, targets), dtype)
        kernel = partial(tree_kernels.dense_scores, trees=count, combine=combine)
        return Scores(values=node.compute(kernel, ended, weights), scored=None)
    starts, target = constant(ballots.starts, "int32"), constant(ballots.target, "int32")
    kernel = partial(tree_kernels.sparse_scores, trees=count, targets=targets, combine=combine)
    both = node.compute(kernel, ended, starts, target, weights)
    return Scores(values=node.emit(both[0]), scored=node.emit(both[1]))


def _ended(node: Node, rows: Any, tables: Layout, steps: int) -> Any:
    """What the leaves bring back, [rows, trees rounded up to a block]."""
    kernel = partial(
        tree_kernels.leaves,
        tracks_missing=tables.tracks_missing,
        steps=steps * shape_of(rows)[0],
    )
    arrays = (tables.words, tables.roots, tables.depths)
    return node.compute(kernel, rows, *map(constant, arrays), name="leaves")


@dataclass(frozen=True, kw_only=True)
class _Ballots:
    """Votes by leaf, leaves in the order in which trees are laid out."""

    starts: np.ndarray
    """Where the votes of each leaf begin, and where the last one's end."""
    target: np.ndarray
    weight: np.ndarray
    is_dense: bool
    """Whether every leaf has one vote for each target, in their order."""


def _ballots(trees: Trees, number: np.ndarray, leaves: int) -> _Ballots:
    """``number`` gives for each node which leaf it is; votes of others (-1) are void."""
    import numpy as np

    votes = trees.votes
    valid = number[votes.node] >= 0
    leaf, target, weight = (a[valid] for a in (number[votes.node], votes.target, votes.weight))
    by_target = np.lexsort((target, leaf))
    counts = np.bincount(leaf, minlength=leaves)
    dense = bool(np.all(counts == votes.targets))
    if dense:
        dense = np.array_equal(target[by_target], np.tile(np.arange(votes.targets), leaves))
    order = by_target if dense else np.argsort(leaf, kind="stable")
    starts = np.concatenate([[0], np.cumsum(counts)])
    return _Ballots(starts=starts, target=target[order], weight=weight[order], is_dense=dense)

"""Tree ensembles as a kernel walks them: every node asks ``x <= threshold``, and no walk can leave.

A node is four words beside each other, so that a step touches one cache line:

    feature, or 2 * feature + 1 where NaN goes to the first child (in ensembles that have such nodes)
    the threshold's bits; of a leaf, what the walk brings back
    where the child begins for x <= threshold
    where the other child begins; a leaf's children are itself

Trees lie one after another, each level by level. A walk takes as many steps as its block's deepest
tree has levels, whatever the values are, and turns on the spot when it has met a leaf.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgepack.compiler.frontend.converters.tree_attributes import (
    EQ,
    GT,
    GTE,
    LEAF,
    LEQ,
    LT,
    MEMBER,
    NEQ,
    Trees,
    damaged,
)
from edgepack.compiler.frontend.node import Node

if TYPE_CHECKING:
    import numpy as np

BLOCK = 8
"""At most so many trees one core walks side by side: while one waits for memory, the others go on."""
WORDS = 4
"""Words of a node."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What the kernel walks."""

    words: np.ndarray
    """int32 where thresholds are float32, int64 where they are float64: [nodes * WORDS]."""
    roots: np.ndarray
    """int32 [blocks, trees of a block]: the word at which each tree begins; some may be there again."""
    depths: np.ndarray
    """int32 [blocks]: steps that reach every leaf of a block's trees."""
    tracks_missing: bool
    """Whether the first word says where NaN goes; else it goes to the second child."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """Reachable nodes in the order of the layout."""

    nodes: np.ndarray
    place: np.ndarray
    """Where each node is in the order; -1 for one that no root reaches."""
    heights: np.ndarray
    """For each root, the longest way to a leaf."""


def checked_order(node: Node, trees: Trees, features: int) -> Order:
    """The order of the layout. Raises ModelError for a cycle and for features that are not there."""
    import numpy as np

    inner = trees.mode != LEAF
    asked = trees.feature[inner]
    if np.any((asked < 0) | (asked >= features)):
        worst = asked[np.argmax((asked < 0) | (asked >= features))]
        raise damaged(node, f"a tree asks for feature {worst} of {features}")
    levels = _levels(trees, inner)
    if sum(len(level) for level in levels) != len(inner):
        raise damaged(node, "a node of a tree leads back to itself")
    owner = np.full(len(inner), -1)
    owner[trees.roots] = np.arange(len(trees.roots))
    depth = np.zeros(len(inner), np.int64)
    for number, level in enumerate(levels):
        depth[level] = number
        parents = level[inner[level] & (owner[level] >= 0)]
        owner[trees.true[parents]] = owner[trees.false[parents]] = owner[parents]
    heights = np.zeros(len(inner), np.int64)
    for level in reversed(levels):
        parents = level[inner[level]]
        heights[parents] = 1 + np.maximum(
            heights[trees.true[parents]], heights[trees.false[parents]]
        )
    order = np.lexsort((depth, owner))
    order = order[owner[order] >= 0]
    place = np.full(len(inner), -1)
    place[order] = np.arange(len(order))
    return Order(nodes=order, place=place, heights=heights[trees.roots])


def _levels(trees: Trees, inner: np.ndarray) -> list[np.ndarray]:
    """Nodes without parents, then those whose parents all are among the former, and so on.

    Nodes of a cycle, and what only they lead to, are in none.
    """
    import numpy as np

    parents = np.bincount(trees.true[inner], minlength=len(inner))
    parents += np.bincount(trees.false[inner], minlength=len(inner))
    levels = [np.flatnonzero(parents == 0)]
    while len(levels[-1]):
        passed = levels[-1][inner[levels[-1]]]
        children = np.concatenate([trees.true[passed], trees.false[passed]])
        np.subtract.at(parents, children, 1)
        levels.append(_distinct(children[parents[children] == 0]))
    return levels


def _distinct(places: np.ndarray) -> np.ndarray:
    """Each once, ascending; for a million of them many times as fast as numpy.unique."""
    import numpy as np

    ordered: np.ndarray = np.sort(places)
    new = np.ones(len(ordered), bool)
    new[1:] = ordered[1:] != ordered[:-1]
    distinct: np.ndarray = ordered[new]
    return distinct


def comparisons(trees: Trees) -> Trees:
    """Equivalent trees whose nodes all are of mode LEQ.

    x < t is x <= the number below t; >= and > are < and <= with the children exchanged; equality
    and membership are two and more comparisons. A threshold of NaN lets nothing pass but a NaN.
    """
    import numpy as np

    mode, nan = trees.mode, np.isnan(trees.threshold)
    turned = ((mode == GTE) | (mode == GT)) & ~nan
    lower = (mode == LT) | (mode == GTE)
    threshold = np.where(lower, below(trees.threshold), trees.threshold)
    changed = trees.with_nodes(
        threshold=threshold,
        mode=np.where(mode <= GT, LEQ, mode),
        true=np.where(turned, trees.false, trees.true),
        false=np.where(turned, trees.true, trees.false),
        missing=trees.missing ^ turned,
    )
    return _memberships(_equalities(changed))


def below(values: np.ndarray) -> np.ndarray:
    """The next smaller number of the same type; NaN below minus infinity."""
    import numpy as np

    with np.errstate(all="ignore"):
        smaller: np.ndarray = np.nextafter(values, values.dtype.type(-np.inf))
    smaller[values == -np.inf] = np.nan
    return smaller


def _equalities(trees: Trees) -> Trees:
    """x == t as x <= t and then not x <= the number below t, in a second node."""
    import numpy as np

    place = np.flatnonzero((trees.mode == EQ) | (trees.mode == NEQ))
    if not len(place):
        return trees
    unequal = trees.mode[place] == NEQ
    same = np.where(unequal, trees.false[place], trees.true[place])
    other = np.where(unequal, trees.true[place], trees.false[place])
    second = len(trees.mode) + np.arange(len(place))
    mode, true, false, missing = (
        array.copy() for array in (trees.mode, trees.true, trees.false, trees.missing)
    )
    mode[place], true[place], false[place] = LEQ, second, other
    missing[place] &= ~unequal  # NaN is not equal to anything, wherever missing values go
    return trees.with_nodes(
        feature=np.concatenate([trees.feature, trees.feature[place]]),
        threshold=np.concatenate([trees.threshold, below(trees.threshold[place])]),
        mode=np.concatenate([mode, np.full(len(place), LEQ)]),
        true=np.concatenate([true, other]),
        false=np.concatenate([false, same]),
        missing=np.concatenate([missing, np.zeros(len(place), bool)]),
    )


def _memberships(trees: Trees) -> Trees:
    """Membership as a search among the numbers where it changes."""
    import numpy as np

    place = np.flatnonzero(trees.mode == MEMBER)
    if not len(place):
        return trees
    searches = [_Search(trees, int(at)) for at in place]
    columns = {
        name: getattr(trees, name).tolist()
        for name in ("feature", "threshold", "mode", "true", "false", "missing")
    }
    for search in searches:
        search.write(columns)
    kinds = {"threshold": trees.threshold.dtype, "missing": np.dtype(bool)}
    arrays = {n: np.array(c, kinds.get(n, np.int64)) for n, c in columns.items()}
    return trees.with_nodes(**arrays)


class _Search:
    """The nodes that take the place of one of mode MEMBER."""

    def __init__(self, trees: Trees, place: int) -> None:
        import numpy as np

        members = trees.members[place]
        self.place, self.feature = place, int(trees.feature[place])
        self.inside, self.outside = int(trees.true[place]), int(trees.false[place])
        self.missing = bool(trees.missing[place])
        edges = np.stack([below(members), members], axis=1).ravel()
        self.first_inside = bool(np.isnan(edges[0]))  # nothing is below minus infinity
        self.edges = edges[1:] if self.first_inside else edges

    def write(self, columns: dict[str, list[float]]) -> None:
        """Overwrite the node, and append the others to the columns."""
        root = self._between(columns, 0, len(self.edges))
        # What is not in the set, NaN with it, ends outside: NaN that is to go inside does so before.
        if self.missing:
            self._put(columns, self.place, float("nan"), self.inside, root, True)
            return
        for column in columns.values():
            column[self.place] = column[root]

    def _between(self, columns: dict[str, list[float]], first: int, stop: int) -> int:
        """The node that searches the edges ``first`` to ``stop``, or the child where there is none."""
        if first == stop:
            return self.inside if (first % 2 == 1) != self.first_inside else self.outside
        middle = (first + stop) // 2
        lower = self._between(columns, first, middle)
        upper = self._between(columns, middle + 1, stop)
        place = len(columns["mode"])
        for column in columns.values():
            column.append(0)
        self._put(columns, place, float(self.edges[middle]), lower, upper, False)
        return place

    def _put(
        self,
        columns: dict[str, list[float]],
        place: int,
        threshold: float,
        true: int,
        false: int,
        missing: bool,
    ) -> None:
        values = (self.feature, threshold, LEQ, true, false, missing)
        for name, value in zip(
            ("feature", "threshold", "mode", "true", "false", "missing"), values, strict=True
        ):
            columns[name][place] = value


def layout(trees: Trees, order: Order, brought: np.ndarray) -> Layout:
    """The words of nodes in ``order``; ``brought`` has, for every node, what a leaf brings back."""
    import numpy as np

    word = np.dtype(np.int32 if trees.threshold.dtype == np.float32 else np.int64)
    leaf = trees.mode == LEAF
    tracks_missing = bool(trees.missing[~leaf].any())
    feature = np.where(leaf, 0, trees.feature)
    if tracks_missing:
        feature = 2 * feature + (trees.missing & ~leaf)
    columns = [
        feature,
        np.where(leaf, brought, trees.threshold.view(word)),
        order.place[trees.true] * WORDS,
        order.place[trees.false] * WORDS,
    ]
    words = np.stack([column[order.nodes] for column in columns], axis=1).astype(word)
    block = min(BLOCK, len(trees.roots))
    blocks = -(-len(trees.roots) // block)
    roots = np.resize(order.place[trees.roots] * WORDS, (blocks, block))
    heights = np.resize(order.heights, (blocks, block))
    return Layout(
        words=words.ravel(),
        roots=roots.astype(np.int32),
        depths=heights.max(axis=1).astype(np.int32),
        tracks_missing=tracks_missing,
    )

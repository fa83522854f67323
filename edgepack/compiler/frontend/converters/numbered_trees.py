"""Reads TreeEnsembleClassifier and TreeEnsembleRegressor, which name nodes by tree and number.

Leaves are nodes of mode LEAF; their weights stand apart, with the names of their nodes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgepack.compiler.frontend.converters.tree_attributes import (
    EQ,
    GT,
    GTE,
    LEAF,
    LEQ,
    LT,
    NEQ,
    Trees,
    Votes,
    checked_votes,
    damaged,
    integers,
    numbers,
)
from edgepack.compiler.frontend.node import Node

if TYPE_CHECKING:
    import numpy as np

_MODES = {
    "BRANCH_LEQ": LEQ,
    "BRANCH_LT": LT,
    "BRANCH_GTE": GTE,
    "BRANCH_GT": GT,
    "BRANCH_EQ": EQ,
    "BRANCH_NEQ": NEQ,
    "LEAF": LEAF,
}


def read_numbered(node: Node, votes: str, targets: int) -> Trees:
    """Trees of TreeEnsembleClassifier (``votes`` is class) and TreeEnsembleRegressor (target)."""
    import numpy as np

    columns = {
        name: integers(node, f"nodes_{name}")
        for name in ("treeids", "nodeids", "featureids", "truenodeids", "falsenodeids")
    }
    count = len(columns["nodeids"])
    columns["missing"] = integers(node, "nodes_missing_value_tracks_true", count)
    threshold = numbers(node, "nodes_values")
    mode = _modes(node)
    if count == 0 or {count} != {len(c) for c in (*columns.values(), threshold, mode)}:
        raise damaged(node, "the attributes nodes_… are empty or differ in length")
    names = _Names(node, columns["treeids"], columns["nodeids"])
    leaf, own = mode == LEAF, np.arange(count)
    children = {}
    for side in ("true", "false"):
        wanted = np.where(leaf, columns["nodeids"], columns[f"{side}nodeids"])
        children[side] = np.where(leaf, own, names.find(columns["treeids"], wanted, "child"))
    roots = np.sort(np.unique(columns["treeids"], return_index=True)[1])
    led_to = np.concatenate([side[~leaf] for side in children.values()])
    if np.isin(roots, led_to).any():
        raise damaged(node, "the first node of a tree is not its root")
    return Trees(
        feature=columns["featureids"],
        threshold=threshold,
        mode=mode,
        true=children["true"],
        false=children["false"],
        missing=columns["missing"] == 1,
        members={},
        roots=roots,
        votes=_numbered_votes(node, votes, targets, names, leaf, threshold),
    )


def _numbered_votes(
    node: Node,
    prefix: str,
    targets: int,
    names: _Names,
    leaf: np.ndarray,
    values: np.ndarray,
) -> Votes:
    trees, nodes, ids = (integers(node, f"{prefix}_{n}") for n in ("treeids", "nodeids", "ids"))
    weight = numbers(node, f"{prefix}_weights")
    if len({len(trees), len(nodes), len(ids), len(weight)}) > 1:
        raise damaged(node, f"the attributes {prefix}_… differ in length")
    place = names.find(trees, nodes, "leaf")
    counted = leaf[place]  # ONNX Runtime, too, passes over weights of nodes that are no leaves
    place, weight = place[counted], weight[counted]
    votes = checked_votes(
        node, Votes(node=place, target=ids[counted], weight=weight, targets=targets)
    )
    return _one_each(votes, leaf, values) if targets == 1 else votes


def _one_each(votes: Votes, leaf: np.ndarray, values: np.ndarray) -> Votes:
    """A vote of every leaf for the only target: as in ONNX Runtime its first, or its own value."""
    import numpy as np

    voting, first = np.unique(votes.node, return_index=True)
    weight = values.copy()
    weight[voting] = votes.weight[first]
    place = np.flatnonzero(leaf)
    return Votes(node=place, target=np.zeros_like(place), weight=weight[place], targets=1)


class _Names:
    """Positions of nodes by tree and number."""

    def __init__(self, node: Node, trees: np.ndarray, nodes: np.ndarray) -> None:
        import numpy as np

        self.node = node
        self.trees, self.nodes = np.unique(trees), np.unique(nodes)
        keys = self._keys(trees, nodes)[0]
        self.order = np.argsort(keys, kind="stable")
        self.keys = keys[self.order]
        double = np.flatnonzero(self.keys[1:] == self.keys[:-1])
        if len(double):
            at = self.order[double[0]]
            raise damaged(node, f"node {nodes[at]} of tree {trees[at]} occurs twice")

    def _keys(self, trees: np.ndarray, nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A number for each pair, and whether there are such a tree and such a number."""
        import numpy as np

        ranks, known = [], np.ones(len(trees), bool)
        for wanted, names in ((trees, self.trees), (nodes, self.nodes)):
            rank = np.minimum(np.searchsorted(names, wanted), len(names) - 1)
            known &= names[rank] == wanted
            ranks.append(rank)
        return ranks[0] * len(self.nodes) + ranks[1], known

    def find(self, trees: np.ndarray, nodes: np.ndarray, what: str) -> np.ndarray:
        """Positions of these nodes. Raises ModelError for the first that is not there."""
        import numpy as np

        keys, known = self._keys(trees, nodes)
        place = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        known &= self.keys[place] == keys
        if not known.all():
            lost = int(np.argmin(known))
            raise damaged(
                self.node, f"node {nodes[lost]} of tree {trees[lost]}, a {what}, is not there"
            )
        found: np.ndarray = self.order[place]
        return found


def _modes(node: Node) -> np.ndarray:
    import numpy as np

    names = node.attributes.get("nodes_modes", ())
    unknown = set(names) - set(_MODES)
    if unknown:
        raise node.unsupported(f"it has nodes of mode {min(unknown)}")
    return np.array([_MODES[name] for name in names], np.int64)

"""Decision trees as ONNX writes them: what forests and boosted trees of every library become.

One TreeEnsembleRegressor (ai.onnx.ml 3) sums the leaves; what follows it, a mean or a softmax, is
plain ONNX. Its thresholds are float32. Libraries compare with float64 thresholds, so those are
rounded in the direction in which every float32 input still takes the branch that it took.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

BELOW = "BRANCH_LT"
"""Left where the feature is less than the threshold: XGBoost."""
UP_TO = "BRANCH_LEQ"
"""Left where the feature is the threshold or less: scikit-learn, LightGBM."""

_LINKS = ("feature", "threshold", "left", "right", "missing_left")


@dataclass(frozen=True, kw_only=True)
class Tree:
    """Parallel arrays with an entry for each node; node 0 is the root."""

    feature: np.ndarray
    threshold: np.ndarray
    """float64, exact."""
    left: np.ndarray
    """Index of the left child; negative for a leaf."""
    right: np.ndarray
    missing_left: np.ndarray
    """Whether NaN goes left."""
    value: np.ndarray
    """What a leaf adds: [nodes] to output ``target``, or [nodes, outputs]."""
    target: int = 0
    categories: Mapping[int, Sequence[float]] = field(default_factory=dict)
    """Nodes that go left where a category is in a set, whatever ``threshold`` says.

    The numbers are those where membership changes, ascending: below the first it is outside.
    """


def arranged(tree: Tree, features: int) -> Tree:
    """The tree level by level, without nodes that its root does not reach.

    Raises ValueError where it is no tree over ``features`` features, as in a damaged file.
    """
    import numpy as np

    order = np.concatenate(levels(tree.left, tree.right))
    place = np.zeros(len(tree.left), np.int64)
    place[order] = np.arange(len(order))
    parts = {name: getattr(tree, name)[order] for name in (*_LINKS, "value")}
    inner = parts["left"] >= 0
    for side in ("left", "right"):
        parts[side] = np.where(inner, place[parts[side]], -1)
    asked = parts["feature"][inner]
    if np.any((asked < 0) | (asked >= features)) or np.isnan(parts["threshold"][inner]).any():
        raise ValueError("a node asks for a feature that is not there")
    if not np.isfinite(parts["value"][~inner]).all():
        raise ValueError("the value of a leaf is not finite")
    reached = set(order.tolist())
    categories = {int(place[n]): tree.categories[n] for n in tree.categories if n in reached}
    return Tree(**parts, target=tree.target, categories=categories)


def levels(left: np.ndarray, right: np.ndarray) -> list[np.ndarray]:
    """The nodes that the root reaches, level by level, siblings beside each other.

    Raises ValueError where they are no tree.
    """
    import numpy as np

    nodes = len(left)
    if nodes == 0:
        raise ValueError("a tree has no nodes")
    reached = np.zeros(nodes, bool)
    found = [np.array([0])]
    while len(found[-1]):
        inner = found[-1][left[found[-1]] >= 0]
        children = np.stack([left[inner], right[inner]], axis=1).ravel()
        if np.any((children < 1) | (children >= nodes)):
            raise ValueError("a node has no such child")
        if reached[children].any() or len(np.unique(children)) < len(children):
            raise ValueError("a node has two parents")
        reached[children] = True
        found.append(children)
    return found


def edges_of(categories: Iterable[int]) -> list[float]:
    """Where membership in a set of categories changes; a category c is any number in [c, c + 1).

    Raises ValueError for an empty set.
    """
    codes = set(categories)
    edges = {code for code in codes if code - 1 not in codes}
    ends = {code + 1 for code in codes if code + 1 not in codes}
    if not codes:
        raise ValueError("a set of categories is empty")
    return [float(edge) for edge in sorted(edges | ends)]


def ensemble_attributes(trees: Sequence[Tree], mode: str, targets: int) -> dict[str, Any]:
    """Attributes of a TreeEnsembleRegressor that sums the trees into float32 [batch, targets]."""
    import numpy as np

    trees = [_with_chains(tree, mode) if tree.categories else tree for tree in trees]
    counts = [len(tree.left) for tree in trees]
    tree_of = np.repeat(np.arange(len(trees)), counts)
    node_of = np.concatenate([np.arange(count) for count in counts])
    left = np.concatenate([tree.left for tree in trees])
    inner = left >= 0
    thresholds = _directed(np.concatenate([tree.threshold for tree in trees]), mode)
    leaves, outputs, weights = zip(*map(_leaf_values, trees), strict=True)
    leaf_tree = np.repeat(np.arange(len(trees)), [len(part) for part in leaves])
    return {
        "n_targets": targets,
        "nodes_treeids": tree_of.tolist(),
        "nodes_nodeids": node_of.tolist(),
        "nodes_modes": np.where(inner, mode, "LEAF").tolist(),
        "nodes_featureids": _of_inner(inner, [tree.feature for tree in trees]),
        "nodes_values": np.where(inner, thresholds, np.float32(0)).tolist(),
        "nodes_truenodeids": np.where(inner, left, 0).tolist(),
        "nodes_falsenodeids": _of_inner(inner, [tree.right for tree in trees]),
        "nodes_missing_value_tracks_true": _of_inner(inner, [t.missing_left for t in trees]),
        "target_treeids": leaf_tree.tolist(),
        "target_nodeids": np.concatenate(leaves).tolist(),
        "target_ids": np.concatenate(outputs).tolist(),
        "target_weights": np.concatenate(weights).astype(np.float32).tolist(),
    }


def _with_chains(tree: Tree, mode: str) -> Tree:
    """Replace each node that asks for a category by a chain of nodes that compare.

    The nodes of a chain share their children: ONNX Runtime allows it.
    """
    import numpy as np

    columns = {name: getattr(tree, name).tolist() for name in _LINKS}
    for node, edges in tree.categories.items():
        here = {name: column[node] for name, column in columns.items()}
        # NaN leaves the chain at the first node whose way out is the right one.
        leaves_at = 1 if here["missing_left"] else 0
        place = node
        for number, edge in enumerate(edges):
            last = number == len(edges) - 1
            following = len(columns["left"])
            link = {
                "feature": here["feature"],
                "threshold": edge if mode == BELOW else np.nextafter(edge, -np.inf),
                "left": here["left"] if number % 2 else here["right"],
                "right": here["right"] if last else following,
                "missing_left": number == leaves_at,
            }
            for name, column in columns.items():
                column[place] = link[name]
                if not last:
                    column.append(0)
            place = following
    added = len(columns["left"]) - len(tree.left)
    arrays: dict[str, Any] = {name: np.array(column) for name, column in columns.items()}
    return Tree(
        **arrays,
        value=np.concatenate([tree.value, np.zeros((added, *tree.value.shape[1:]))]),
        target=tree.target,
    )


def _of_inner(inner: np.ndarray, parts: list[np.ndarray]) -> list[int]:
    import numpy as np

    values: list[int] = np.where(inner, np.concatenate(parts), 0).astype(np.int64).tolist()
    return values


def _leaf_values(tree: Tree) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each value of each leaf: the node, the output that it adds to, the value."""
    import numpy as np

    leaves = np.flatnonzero(tree.left < 0)
    if tree.value.ndim == 1:
        return leaves, np.full(len(leaves), tree.target), tree.value[leaves]
    outputs = tree.value.shape[1]
    return (
        np.repeat(leaves, outputs),
        np.tile(np.arange(outputs), len(leaves)),
        tree.value[leaves].ravel(),
    )


def _directed(threshold: np.ndarray, mode: str) -> np.ndarray:
    """float32 thresholds that split the float32 numbers as the float64 ones do."""
    import numpy as np

    with np.errstate(over="ignore"):
        rounded = threshold.astype(np.float32)
    if mode == UP_TO:
        lower = np.nextafter(rounded, np.float32(-np.inf))
        return np.where(rounded > threshold, lower, rounded)
    upper = np.nextafter(rounded, np.float32(np.inf))
    return np.where(rounded < threshold, upper, rounded)

"""Reads TreeEnsemble (version 5 of ai.onnx.ml), in which nodes and leaves are positions.

Inner nodes and leaves are counted apart; in the arrays made here leaves follow all inner nodes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgepack.compiler.frontend.converters.tree_attributes import (
    LEAF,
    LEQ,
    MEMBER,
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


def read_positions(node: Node) -> Trees:
    """Trees of TreeEnsemble (version 5): inner nodes first, then leaves."""
    import numpy as np

    feature = integers(node, "nodes_featureids")
    inner = len(feature)
    weight = numbers(node, "leaf_weights")
    leaves = len(weight)
    columns = {
        name: integers(node, f"nodes_{name}")
        for name in ("truenodeids", "falsenodeids", "trueleafs", "falseleafs")
    }
    columns["missing"] = integers(node, "nodes_missing_value_tracks_true", inner)
    splits = numbers(node, "nodes_splits")
    mode = np.asarray(node.attributes.get("nodes_modes", ()), np.int64)
    if not inner or {inner} != {len(c) for c in (*columns.values(), splits, mode)}:
        raise damaged(node, "the attributes nodes_… are empty or differ in length")
    if np.any((mode < LEQ) | (mode > MEMBER)):
        raise damaged(node, "nodes_modes has a number that stands for no comparison")
    own = np.arange(inner, inner + leaves)
    children = {}
    for side in ("true", "false"):
        is_leaf = columns[f"{side}leafs"] != 0
        place = columns[f"{side}nodeids"]
        if np.any((place < 0) | (place >= np.where(is_leaf, leaves, inner))):
            raise damaged(node, f"nodes_{side}nodeids has a position that is not there")
        children[side] = np.concatenate([np.where(is_leaf, place + inner, place), own])
    nothing = np.zeros(leaves, np.int64)
    return Trees(
        feature=np.concatenate([feature, nothing]),
        threshold=np.concatenate([splits, nothing]).astype(splits.dtype),
        mode=np.concatenate([mode, nothing + LEAF]),
        true=children["true"],
        false=children["false"],
        missing=np.concatenate([columns["missing"] == 1, nothing != 0]),
        members=_members(node, mode),
        roots=_roots(node, inner),
        votes=_leaf_votes(node, own, weight),
    )


def _roots(node: Node, inner: int) -> np.ndarray:
    import numpy as np

    roots = integers(node, "tree_roots")
    if len(roots) == 0 or np.any((roots < 0) | (roots >= inner)):
        raise damaged(node, "tree_roots is empty or has a position that is not there")
    return roots


def _leaf_votes(node: Node, place: np.ndarray, weight: np.ndarray) -> Votes:
    target = integers(node, "leaf_targetids")
    if len(target) != len(weight) or not len(weight):
        raise damaged(node, "the attributes leaf_… are empty or differ in length")
    targets = int(node.attributes.get("n_targets", 1))
    return checked_votes(node, Votes(node=place, target=target, weight=weight, targets=targets))


def _members(node: Node, mode: np.ndarray) -> dict[int, np.ndarray]:
    """The sets of membership_values, which NaN keeps apart, by the position of their node."""
    import numpy as np

    asked = np.flatnonzero(mode == MEMBER)
    if not len(asked):
        return {}
    values = numbers(node, "membership_values")
    sets = np.split(values, np.flatnonzero(np.isnan(values)))
    parts = [part[~np.isnan(part)] for part in sets]
    if len(parts) == len(asked) + 1 and not len(parts[-1]):
        parts.pop()  # NaN may also stand behind the last set
    if len(parts) != len(asked) or not all(len(part) for part in parts):
        raise damaged(node, f"membership_values has not one set for each of {len(asked)} nodes")
    return {int(place): np.unique(part) for place, part in zip(asked, parts, strict=True)}

"""Tree ensembles of ai.onnx.ml as arrays in which a child is a position.

numbered_trees and positioned_trees read them out of the two forms that ONNX has. Both check them,
since a device walks these trees without looking: whatever is missing, doubled or points nowhere is a
ModelError that names the ONNX node.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgepack.compiler.frontend.node import Node
from edgepack.errors import ModelError

if TYPE_CHECKING:
    import numpy as np

LEQ, LT, GTE, GT, EQ, NEQ, MEMBER, LEAF = range(8)
"""What a node asks; the numbers are those of TreeEnsemble, which has no leaves among its nodes."""


@dataclass(frozen=True, kw_only=True)
class Trees:
    """Parallel arrays with an entry for each node of all trees; several parents may share a child."""

    feature: np.ndarray
    threshold: np.ndarray
    """float32 or float64: the type in which features are compared and votes are counted."""
    mode: np.ndarray
    true: np.ndarray
    """Position of the child where the comparison holds; a leaf's is its own."""
    false: np.ndarray
    missing: np.ndarray
    """Whether NaN goes to the child ``true``."""
    members: dict[int, np.ndarray]
    """For a node of mode MEMBER the values that it asks for, ascending, each once."""
    roots: np.ndarray
    """A position for each tree."""
    votes: Votes

    def with_nodes(self, **changed: Any) -> Trees:
        """The same trees with some arrays replaced."""
        return Trees(**{**vars(self), **changed})


@dataclass(frozen=True, kw_only=True)
class Votes:
    """Parallel arrays with an entry for each weight that a leaf adds to a target."""

    node: np.ndarray
    target: np.ndarray
    weight: np.ndarray
    targets: int


def damaged(node: Node, what: str) -> ModelError:
    """The error for trees that do not hold together; to be raised."""
    return ModelError(f"{node.label}: {what}", "its trees are damaged: export the model again")


def threshold_dtype(node: Node) -> str:
    """float64 for float64 features and for thresholds given as float64; else float32."""
    import numpy as np

    tensors = [v for v in node.attributes.values() if isinstance(v, np.ndarray)]
    wide = node.dtype() == "float64" or any(v.dtype == np.float64 for v in tensors)
    return "float64" if wide else "float32"


def checked_votes(node: Node, votes: Votes) -> Votes:
    """``votes``. Raises ModelError for targets that are not there, and for NaN."""
    import numpy as np

    if votes.targets < 1 or not len(votes.target):
        raise damaged(node, "it has no target or class, or no leaf with a weight for one")
    outside = (votes.target < 0) | (votes.target >= votes.targets)
    if outside.any():
        lost = votes.target[np.argmax(outside)]
        raise damaged(node, f"a leaf is for target {lost} of {votes.targets}")
    if np.isnan(votes.weight).any():
        raise damaged(node, "the weight of a leaf is NaN")
    return votes


def numbers(node: Node, name: str) -> np.ndarray:
    """The floats of an attribute, or of NAME_as_tensor, in the type of the thresholds; or none."""
    import numpy as np

    value = node.attributes.get(name)
    if value is None or not len(value):
        value = node.attributes.get(f"{name}_as_tensor", ())
    return np.asarray(value, threshold_dtype(node)).ravel()


def integers(node: Node, name: str, default: int = 0) -> np.ndarray:
    """The integers of an attribute; where it is not given, ``default`` zeros."""
    import numpy as np

    values = np.asarray(node.attributes.get(name, ()), np.int64)
    return values if len(values) else np.zeros(default, np.int64)

"""Linear models of ai.onnx.ml: LinearClassifier and LinearRegressor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgepack.compiler.frontend.converters.class_scores import (
    class_labels,
    complement,
    feature_rows,
    first_largest,
    labelled,
    logistic,
    pair,
    post_transform,
    sign_labels,
    transformed,
)
from edgepack.compiler.frontend.node import Converter, Node, constant, shape_of

if TYPE_CHECKING:
    import numpy as np

DOMAIN = "ai.onnx.ml"


def _classifier(node: Node) -> list[Any]:
    rows = feature_rows(node, "float32")
    features = shape_of(rows)[1]
    intercepts = float_attribute(node, "intercepts")
    columns = len(intercepts) or len(float_attribute(node, "coefficients")) // features
    scores = affine(node, rows, max(columns, 1), intercepts)
    transform = post_transform(node)
    labels = class_labels(node, "classlabels_ints")
    if len(labels) != max(columns, 2):
        raise node.unsupported(f"it has {len(labels)} class labels for {columns} scores")
    if columns > 1:
        label = labelled(node, first_largest(node, scores), labels)
        return [label, transformed(node, scores, transform)]
    if transform == "PROBIT":
        raise node.unsupported("its post_transform is PROBIT of one score for two classes")
    label = sign_labels(node, scores, labels)
    return [label, pair(node, scores, logistic if transform == "LOGISTIC" else complement)]


def _regressor(node: Node) -> Any:
    rows = feature_rows(node, "float32")
    targets = int(node.attributes.get("targets", 1))
    scores = affine(node, rows, targets, float_attribute(node, "intercepts"))
    return transformed(node, scores, post_transform(node))


def affine(node: Node, rows: Any, columns: int, offsets: np.ndarray) -> Any:
    """``rows`` [n, features] times the attribute coefficients [columns, features], plus offsets.

    ``offsets`` has one for each column, or one for all, or none.
    """
    import numpy as np
    from tvm import relax

    weights = float_attribute(node, "coefficients")
    features = shape_of(rows)[1]
    if len(weights) != columns * features:
        raise node.unsupported(
            f"it has {len(weights)} coefficients for {columns} scores of {features} features"
        )
    matrix = constant(np.ascontiguousarray(weights.reshape(columns, features).T))
    scores = node.emit(relax.op.matmul(rows, matrix))
    if not len(offsets):
        return scores
    if len(offsets) not in (1, columns):
        raise node.unsupported(f"it has {len(offsets)} intercepts for {columns} scores")
    return node.emit(relax.op.add(scores, constant(np.resize(offsets, (1, columns)))))


def float_attribute(node: Node, name: str) -> np.ndarray:
    """A list of floats; empty where it is not given."""
    import numpy as np

    return np.asarray(node.attributes.get(name, ()), np.float32)


CONVERTERS: dict[str, Converter] = {
    "LinearClassifier": _classifier,
    "LinearRegressor": _regressor,
}

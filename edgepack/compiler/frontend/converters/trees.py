"""Tree ensembles of ai.onnx.ml: what forests and boosted trees of every library become.

numbered_trees and positioned_trees read and check them, tree_nodes lays them out, tree_kernels walks
them, tree_scores counts; here the counts become predictions.
"""

from __future__ import annotations

from typing import Any

from edgepack.compiler.frontend.converters.class_scores import (
    class_labels,
    first_largest,
    labelled,
    post_transform,
    sign_labels,
    transformed,
)
from edgepack.compiler.frontend.converters.formulas import elementwise
from edgepack.compiler.frontend.converters.numbered_trees import read_numbered
from edgepack.compiler.frontend.converters.positioned_trees import read_positions
from edgepack.compiler.frontend.converters.tree_attributes import Trees, numbers
from edgepack.compiler.frontend.converters.tree_scores import AGGREGATES, scores
from edgepack.compiler.frontend.converters.two_class_trees import two_classes
from edgepack.compiler.frontend.converters.values import bound, cast
from edgepack.compiler.frontend.node import Converter, Node, constant, dtype_of

DOMAIN = "ai.onnx.ml"


def _classifier(node: Node) -> list[Any]:
    labels = class_labels(node, "classlabels_int64s")
    trees = read_numbered(node, "class", len(labels))
    base = numbers(node, "base_values").tolist()
    if len(base) not in ((0, 1, 2) if len(labels) == 2 else (0, len(labels))):
        raise node.unsupported(f"it has {len(base)} base_values for {len(labels)} classes")
    if len(labels) == 2:
        return two_classes(node, trees, labels, base)
    counted = scores(node, trees, "SUM")
    values, scored = counted.values, counted.scored
    if base:
        values, scored = _plus(node, values, base), None
    if len(labels) == 1:
        # Whatever the only class is called, the answers are 1 above zero, and 0.
        label = sign_labels(node, values, [0, 1])
    else:
        label = labelled(node, first_largest(node, values, scored), labels)
    answer = bound(node, cast(values, "float32"))
    return [label, transformed(node, answer, post_transform(node))]


def _regressor(node: Node) -> Any:
    targets = int(node.attributes.get("n_targets", 1))
    return _regression(node, read_numbered(node, "target", targets))


def _ensemble(node: Node) -> Any:
    return _regression(node, read_positions(node))


def _regression(node: Node, trees: Trees) -> Any:
    from tvm import tirx

    name = node.attributes.get("aggregate_function", "SUM")
    name = AGGREGATES[name] if name in range(len(AGGREGATES)) else name
    if name not in AGGREGATES:
        raise node.unsupported(f"its aggregate_function is {name!r}")
    base = numbers(node, "base_values").tolist()
    if len(base) not in (0, trees.votes.targets):
        raise node.unsupported(f"it has {len(base)} base_values for {trees.votes.targets} targets")
    counted = scores(node, trees, name)
    values = counted.values
    if name == "AVERAGE":
        count = len(trees.roots)
        values = elementwise(node, lambda v: v / tirx.const(count, v.ty.dtype), values)
    if base:
        values = _of_scored(node, _plus(node, values, base), counted.scored)
    transform = post_transform(node)
    if transform != "NONE":
        values = transformed(node, bound(node, cast(values, "float32")), transform)
    return bound(node, cast(values, node.outputs[0].dtype))


def _plus(node: Node, values: Any, base: list[float]) -> Any:
    from tvm import relax

    return node.emit(relax.op.add(values, constant([base], dtype_of(values))))


def _of_scored(node: Node, values: Any, scored: Any) -> Any:
    """0 where no leaf had a weight: there ONNX Runtime adds no base value either."""
    from tvm import tirx

    def masked(value: Any, flag: Any) -> Any:
        return tirx.Select(flag != tirx.const(0, "uint8"), value, tirx.const(0, value.ty.dtype))

    return values if scored is None else elementwise(node, masked, values, scored)


CONVERTERS: dict[str, Converter] = {
    "TreeEnsembleClassifier": _classifier,
    "TreeEnsembleRegressor": _regressor,
    "TreeEnsemble": _ensemble,
}

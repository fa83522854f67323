"""scikit-learn's trees for skl2onnx: converters that take its own ones' place.

Its own drop where a forest sends NaN, break ties between classes in float32, take six operators for
every tree of an isolation forest, and know the older layout of histogram boosting alone. Here each of
these is one TreeEnsembleRegressor and what follows from its sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from edgepack.importers.sklearn.nodes import Converter, Nodes, no_conversion
from edgepack.importers.trees import UP_TO, Tree, arranged, ensemble_attributes


def tree_converters() -> dict[type, Converter]:
    """By type of the estimator."""
    from sklearn import ensemble, tree

    return {
        tree.DecisionTreeClassifier: _forest_classifier,
        tree.DecisionTreeRegressor: _forest_regressor,
        tree.ExtraTreeClassifier: _forest_classifier,
        tree.ExtraTreeRegressor: _forest_regressor,
        ensemble.ExtraTreesClassifier: _forest_classifier,
        ensemble.ExtraTreesRegressor: _forest_regressor,
        ensemble.HistGradientBoostingClassifier: _histogram_classifier,
        ensemble.HistGradientBoostingRegressor: _histogram_regressor,
        ensemble.IsolationForest: _isolation_forest,
        ensemble.RandomForestClassifier: _forest_classifier,
        ensemble.RandomForestRegressor: _forest_regressor,
    }


def _sums(nodes: Nodes, trees: Sequence[Tree], outputs: int, base: Sequence[float] = ()) -> str:
    """Add the trees; their sums [batch, outputs]."""
    features = nodes.estimator.n_features_in_
    attributes = ensemble_attributes([arranged(tree, features) for tree in trees], UP_TO, outputs)
    if len(base):
        attributes["base_values"] = [float(value) for value in base]
    attributes |= {"op_domain": "ai.onnx.ml", "op_version": 3}
    return nodes.add("TreeEnsembleRegressor", [nodes.features()], **attributes)


def _mean(nodes: Nodes, trees: Sequence[Tree], outputs: int, output: str) -> None:
    # Divided, not weighted: sums of votes are whole numbers, and ties stay ties.
    count = nodes.constant([float(len(trees))])
    nodes.add("Div", [_sums(nodes, trees, outputs), count], output)


def _forest_trees(estimator: Any) -> list[Tree]:
    import numpy as np

    trees = []
    for member in getattr(estimator, "estimators_", [estimator]):
        tree = member.tree_
        trees.append(
            Tree(
                feature=tree.feature,
                threshold=tree.threshold,
                left=tree.children_left,
                right=tree.children_right,
                missing_left=np.asarray(tree.missing_go_to_left, bool),
                value=tree.value.reshape(tree.node_count, -1),
            )
        )
    return trees


def _forest_classifier(*arguments: Any) -> None:
    nodes = Nodes(*arguments)
    if nodes.estimator.n_outputs_ > 1:
        raise nodes.refusal("it has several outputs")
    trees = _forest_trees(nodes.estimator)
    _mean(nodes, trees, len(nodes.estimator.classes_), nodes.outputs[1])
    nodes.label(nodes.outputs[1])


def _forest_regressor(*arguments: Any) -> None:
    nodes = Nodes(*arguments)
    _mean(nodes, _forest_trees(nodes.estimator), nodes.estimator.n_outputs_, nodes.outputs[0])


def _histogram_trees(nodes: Nodes) -> list[Tree]:
    import numpy as np

    trees = []
    for iteration in nodes.estimator._predictors:
        for target, predictor in enumerate(iteration):
            written = predictor.nodes
            if written["is_categorical"].any():
                raise nodes.refusal("it has categorical features")
            leaf = written["is_leaf"] > 0
            trees.append(
                Tree(
                    feature=written["feature_idx"].astype(np.int64),
                    threshold=written["num_threshold"].astype(np.float64),
                    left=np.where(leaf, -1, written["left"].astype(np.int64)),
                    right=np.where(leaf, -1, written["right"].astype(np.int64)),
                    missing_left=written["missing_go_to_left"] > 0,
                    value=written["value"],
                    target=target,
                )
            )
    return trees


def _histogram_sums(nodes: Nodes) -> str:
    base = nodes.estimator._baseline_prediction.ravel()
    return _sums(nodes, _histogram_trees(nodes), len(base), base)


def _histogram_classifier(*arguments: Any) -> None:
    nodes = Nodes(*arguments)
    sums = _histogram_sums(nodes)
    if len(nodes.estimator.classes_) == 2:
        second = nodes.add("Sigmoid", [sums])
        first = nodes.add("Sub", [nodes.constant([1.0]), second])
        nodes.add("Concat", [first, second], nodes.outputs[1], axis=1, op_version=13)
    else:
        nodes.add("Softmax", [sums], nodes.outputs[1], axis=1, op_version=13)
    nodes.label(nodes.outputs[1])


def _histogram_regressor(*arguments: Any) -> None:
    nodes = Nodes(*arguments)
    link = type(nodes.estimator._loss.link).__name__
    operators = {"IdentityLink": "Identity", "LogLink": "Exp"}
    if link not in operators:
        raise nodes.refusal(f"its link is {link}")
    nodes.add(operators[link], [_histogram_sums(nodes)], nodes.outputs[0])


def _isolation_forest(*arguments: Any) -> None:
    """``2 ** (-depth / expected depth)`` and its sign, after Liu, Ting, Zhou: Isolation Forest, 2008.

    A leaf adds its depth and the depth that its samples would have if they were told apart.
    """
    import numpy as np
    from onnx import TensorProto

    nodes = Nodes(*arguments)
    forest = nodes.estimator
    trees = []
    for tree, features, depth, more in zip(
        _forest_trees(forest),
        forest.estimators_features_,
        forest._decision_path_lengths,
        forest._average_path_length_per_tree,
        strict=True,
    ):
        asked = np.asarray(features)[np.maximum(tree.feature, 0)]
        lengths = np.asarray(depth) + np.asarray(more) - 1.0
        trees.append(replace(tree, feature=asked, value=lengths))
    depths = _sums(nodes, trees, 1)
    exponents = nodes.add("Div", [depths, nodes.constant([-_expected_depth(forest) * len(trees)])])
    powers = nodes.add("Pow", [nodes.constant([2.0]), exponents], op_version=13)
    negative = nodes.add("Neg", [powers])
    scores = nodes.add("Sub", [negative, nodes.constant([forest.offset_])], nodes.outputs[1])
    outlier = nodes.add("Less", [scores, nodes.constant([0.0])])
    as_number = nodes.add("Cast", [outlier], to=TensorProto.INT64)
    doubled = nodes.add("Mul", [as_number, nodes.constant([-2], "INT64")])
    nodes.add("Add", [doubled, nodes.constant([1], "INT64")], nodes.outputs[0])


def _expected_depth(forest: Any) -> float:
    """Mean depth of a leaf in a binary search tree of as many samples as a tree was grown with."""
    import numpy as np

    samples = forest._max_samples
    if samples < 2:
        raise no_conversion("IsolationForest", ": its trees are grown on single samples")
    if samples == 2:
        return 1.0
    depth: float = 2.0 * (np.log(samples - 1.0) + np.euler_gamma) - 2.0 * (samples - 1.0) / samples
    return depth

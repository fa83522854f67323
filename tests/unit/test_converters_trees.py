from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper

from edgepack.compiler import frontend
from edgepack.errors import ModelError
from edgepack.targets import load_target
from tests.classical import (
    Attributes,
    Value,
    agree,
    classifier,
    exported,
    features,
    floats,
    one_node,
    regressor,
)
from tests.kernels import EXTREMES, compile_network, run, threads

MODES = ("LEQ", "LT", "GTE", "GT", "EQ", "NEQ")
NODE_COLUMNS: tuple[str, ...] = ("treeids", "nodeids", "featureids", "values", "modes")
NODE_COLUMNS += ("truenodeids", "falsenodeids", "missing_value_tracks_true")


def stump(prefix: str, votes: list[list[tuple[int, float]]], **changed: Any) -> Attributes:
    """One comparison, x[0] <= 0, and two leaves with votes of (target, weight)."""
    flat = [(leaf + 1, *vote) for leaf, each in enumerate(votes) for vote in each]
    attributes: Attributes = {
        "nodes_treeids": [0, 0, 0],
        "nodes_nodeids": [0, 1, 2],
        "nodes_featureids": [0, 0, 0],
        "nodes_values": [0.0, 0.0, 0.0],
        "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
        "nodes_truenodeids": [1, 0, 0],
        "nodes_falsenodeids": [2, 0, 0],
        f"{prefix}_treeids": [0] * len(flat),
        f"{prefix}_nodeids": [node for node, _, _ in flat],
        f"{prefix}_ids": [target for _, target, _ in flat],
        f"{prefix}_weights": [float(weight) for _, _, weight in flat],
    }
    return {name: value for name, value in (attributes | changed).items() if value is not None}


class Forest:
    """Random trees of every shape, their nodes named and listed in any order."""

    def __init__(self, generator: np.random.Generator, trees: int, depth: int, width: int) -> None:
        self.generator, self.depth, self.width = generator, depth, width
        self.columns: dict[str, list[Any]] = {name: [] for name in NODE_COLUMNS}
        self.leaves: list[tuple[int, int]] = []
        names = generator.permutation(3 * trees)[:trees]
        for name in names.tolist():
            self._grow(name, shift=int(generator.integers(0, trees)))

    def _grow(self, tree: int, shift: int) -> None:
        rows: dict[int, tuple[Any, ...]] = {}
        pending, count, own = [(0, 0)], 1, []
        while pending:
            node, level = pending.pop()
            if level == self.depth or (level and self.generator.random() < 0.2):
                rows[node] = (0, 0.0, "LEAF", 0, 0)
                own.append(node)
                continue
            if own and self.generator.random() < 0.15:  # a leaf that another node leads to as well
                children, new = (int(self.generator.choice(own)) + shift, count + shift), [count]
            else:
                children, new = (count + shift, count + 1 + shift), [count, count + 1]
            count += len(new)
            pending += [(child, level + 1) for child in new]
            mode = f"BRANCH_{self.generator.choice(MODES)}"
            split = float(features(self.generator, (1,), np.float32)[0])
            rows[node] = (int(self.generator.integers(self.width)), split, mode, *children)
        for node in [0, *(1 + self.generator.permutation(count - 1)).tolist()]:
            feature, split, mode, true, false = rows[node]
            track = int(self.generator.integers(2))
            row = (tree, node + shift, feature, split, mode, true, false, track)
            for name, value in zip(NODE_COLUMNS, row, strict=True):
                self.columns[name].append(value)
        self.leaves += [(tree, node + shift) for node in own]

    def attributes(
        self, prefix: str, targets: list[int], weigh: Callable[[], float], share: float = 1.0
    ) -> Attributes:
        """Every leaf votes for each target, or for as large a part of them as ``share`` says."""
        votes = [
            (*leaf, target, weigh())
            for leaf in self.leaves
            for target in self.generator.permutation(targets).tolist()
            if self.generator.random() < share
        ]
        names = ("treeids", "nodeids", "ids", "weights")
        columns = zip(*votes, strict=True)
        voting = {f"{prefix}_{n}": list(c) for n, c in zip(names, columns, strict=True)}
        return {f"nodes_{name}": column for name, column in self.columns.items()} | voting


CASES = [
    # rows, trees, depth, dtype, labels, classes with votes, share of votes, weights, transform
    (1, 1, 4, np.float32, [0, 1, 2], [0, 1, 2], 1.0, "signed", "NONE"),
    (7, 9, 5, np.float32, [5, 9, 2, 7], [0, 1, 2, 3], 0.4, "signed", "SOFTMAX"),
    (60, 3, 3, np.float64, [3, 1, 2], [0, 1, 2], 1.0, "positive", "LOGISTIC"),
    (2, 8, 6, np.int64, [3, 1, 2], [1, 2], 0.6, "signed", "SOFTMAX_ZERO"),
    (7, 30, 2, np.int32, [0, 1], [0], 1.0, "positive", "NONE"),
    (7, 3, 4, np.float32, [4, 8], [0], 1.0, "signed", "LOGISTIC"),
    (7, 3, 4, np.float32, [4, 8], [1], 0.5, "positive", "SOFTMAX"),
    (60, 9, 4, np.float64, [0, 1], [0, 1], 0.3, "signed", "LOGISTIC"),
    (2, 9, 0, np.float32, [0, 1, 2], [0, 1, 2], 1.0, "positive", "NONE"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[3].__name__}-{case[8]}")
def test_random_forests_classify_as_in_onnx_runtime(case: Any) -> None:
    rows, trees, depth, dtype, labels, voted, share, weights, transform = case
    generator = np.random.default_rng(CASES.index(case))
    forest = Forest(generator, trees, depth, width=5)

    def weigh() -> float:
        value = generator.random() if weights == "positive" else generator.standard_normal()
        return float(np.float32(value / trees))

    attributes = forest.attributes("class", voted, weigh, share)
    network = classifier(
        "TreeEnsembleClassifier",
        dtype,
        (rows, 5),
        len(labels),
        opset=3,
        classlabels_int64s=labels,
        post_transform=transform,
        **attributes,
    )
    target = EXTREMES[CASES.index(case) % len(EXTREMES)]
    agree(network, features(generator, (rows, 5), dtype, nan=True), target=target)


@pytest.mark.parametrize("aggregate", ["SUM", "AVERAGE", "MIN", "MAX"])
@pytest.mark.parametrize(("targets", "share"), [(1, 1.0), (3, 1.0), (3, 0.4)])
def test_random_forests_aggregate_as_in_onnx_runtime(
    aggregate: str, targets: int, share: float
) -> None:
    generator = np.random.default_rng([len(aggregate), targets, int(10 * share)])
    forest = Forest(generator, 10, 4, width=3)
    attributes = forest.attributes(
        "target", list(range(targets)), lambda: floats(generator.standard_normal())[0], share
    )
    network = regressor(
        "TreeEnsembleRegressor",
        np.float32,
        (20, 3),
        targets,
        opset=3,
        n_targets=targets,
        aggregate_function=aggregate,
        base_values=floats(generator.standard_normal(targets)),
        **attributes,
    )
    agree(network, features(generator, (20, 3), np.float32, nan=True))


THRESHOLDS = floats([0, -0.0, 1e-45, -1e-45, 1, 3.4028235e38, -3.4028235e38, np.inf, -np.inf])
THRESHOLDS.append(float("nan"))


@pytest.mark.parametrize("tracks", [0, 1, None])
def test_every_comparison_decides_on_special_numbers_as_in_onnx_runtime(
    tracks: int | None,
) -> None:
    questions = [(mode, threshold) for mode in MODES for threshold in THRESHOLDS]
    attributes: Attributes = {}
    for number, (mode, threshold) in enumerate(questions):
        tree = stump("target", [[(number, 1.0)], [(number, 2.0)]])
        tree["nodes_modes"][0], tree["nodes_values"][0] = f"BRANCH_{mode}", threshold
        tree["nodes_treeids"] = [number] * 3
        tree["target_treeids"] = [number] * 2
        if tracks is not None:
            tree["nodes_missing_value_tracks_true"] = [tracks, 0, 0]
        for name, column in tree.items():
            attributes[name] = attributes.get(name, []) + column
    asked = np.array([[x] for x in (*THRESHOLDS, 0.5, -2, 2e-45, -2e-45)], np.float32)
    network = regressor(
        "TreeEnsembleRegressor",
        np.float32,
        asked.shape,
        len(questions),
        opset=3,
        n_targets=len(questions),
        **attributes,
    )
    (answer,), _ = agree(network, asked)
    assert set(np.unique(answer)) == {1.0, 2.0}


BOTH = [[(0, 0.3), (1, 0.7)], [(0, 0.9), (1, 0.1)]]
EITHER = [[(0, 0.3)], [(1, 0.9)]]
TWO_CLASSES: dict[str, Attributes] = {
    "probability": stump("class", [[(0, 0.3)], [(0, 0.8)]]),
    "signed": stump("class", [[(0, -0.3)], [(0, 0.8)]]),
    "second only": stump("class", [[(1, 0.3)], [(1, 0.8)]]),
    "both": stump("class", BOTH),
    "either": stump("class", EITHER),
    "a leaf without": stump("class", [[(0, 0.3)], []]),
    "two base values": stump("class", [[(0, 0.3)], [(0, 0.8)]], base_values=[0.1, 0.2]),
    "both, two base values": stump("class", BOTH, base_values=[0.1, 0.2]),
    "either, two base values": stump("class", EITHER, base_values=[0.1, 0.2]),
    "a base value": stump("class", [[(0, 0.3)], [(0, 0.8)]], base_values=[0.1]),
    "both, a base value": stump("class", BOTH, base_values=[0.1]),
}


@pytest.mark.parametrize("transform", ["NONE", "LOGISTIC", "SOFTMAX"])
@pytest.mark.parametrize("case", TWO_CLASSES)
def test_two_classes_are_told_apart_as_in_onnx_runtime(case: str, transform: str) -> None:
    network = classifier(
        "TreeEnsembleClassifier",
        np.float32,
        (2, 1),
        2,
        opset=3,
        classlabels_int64s=[5, 7],
        post_transform=transform,
        **TWO_CLASSES[case],
    )
    agree(network, np.array([[-1], [1]], np.float32))


@pytest.mark.parametrize("base", [[], [0.1]])
def test_the_label_of_an_only_class_is_a_sign_as_in_onnx_runtime(base: list[float]) -> None:
    network = classifier(
        "TreeEnsembleClassifier",
        np.float32,
        (2, 1),
        1,
        opset=3,
        classlabels_int64s=[5],
        **stump("class", [[(0, -0.3)], [(0, 0.8)]], base_values=base or None),
    )
    (labels, _), _ = agree(network, np.array([[-1], [1]], np.float32))
    assert labels.tolist() == [0, 1]


def test_probit_scores_are_those_of_onnx_runtime() -> None:
    network = regressor(
        "TreeEnsembleRegressor",
        np.float32,
        (2, 1),
        2,
        opset=3,
        n_targets=2,
        post_transform="PROBIT",
        **stump("target", [[(0, 0.3), (1, 0.99)], [(0, 1.0), (1, 0.0)]]),
    )
    (answer,), _ = agree(network, np.array([[-1], [1]], np.float32))
    assert answer[1].tolist() == [np.inf, -np.inf]


def test_probit_of_one_score_for_two_classes_is_refused() -> None:
    network = classifier(
        "TreeEnsembleClassifier",
        np.float32,
        (2, 1),
        2,
        opset=3,
        classlabels_int64s=[0, 1],
        post_transform="PROBIT",
        **stump("class", [[(0, 0.3)], [(0, 0.8)]]),
    )
    with pytest.raises(ModelError, match=r"TreeEnsembleClassifier 'it'.*PROBIT of one score"):
        frontend.to_relax(network)


def test_sums_that_tie_are_decided_as_in_onnx_runtime() -> None:
    generator = np.random.default_rng(0)
    forest = Forest(generator, 12, 3, width=4)
    attributes = forest.attributes("class", [0, 1, 2], lambda: generator.integers(0, 2) * 0.1)
    network = classifier(
        "TreeEnsembleClassifier",
        np.float32,
        (40, 4),
        3,
        opset=3,
        classlabels_int64s=[0, 1, 2],
        **attributes,
    )
    (labels, scores), _ = agree(network, features(generator, (40, 4), np.float32))
    ordered = np.sort(scores, axis=1)
    assert np.count_nonzero(ordered[:, 2] - ordered[:, 1] < 1e-6) > 3
    assert len(set(labels.tolist())) == 3


def tensor(values: Any, dtype: Any) -> Any:
    return numpy_helper.from_array(np.array(values, dtype))


def test_thresholds_of_float64_decide_in_float64() -> None:
    close = 1 + 2.0**-40
    network = regressor(
        "TreeEnsembleRegressor",
        np.float64,
        (3, 1),
        1,
        opset=3,
        n_targets=1,
        **stump(
            "target",
            [[(0, 0.0)], [(0, 0.0)]],
            nodes_values=None,
            nodes_values_as_tensor=tensor([close, 0, 0], np.float64),
            target_weights=None,
            target_weights_as_tensor=tensor([1 / 3, 2 / 3], np.float64),
        ),
    )
    (answer,), _ = agree(network, np.array([[1], [close], [1 + 2.0**-39]]))
    assert np.allclose(answer.ravel(), [1 / 3, 1 / 3, 2 / 3])


def ensemble(
    dtype: Any, rows: int, sets: list[list[float]], tracks: int = 0, **changed: Any
) -> Any:
    """TreeEnsemble: a tree for each set of members; it adds 2**number where x[0] is a member."""
    count = len(sets)
    attributes: Attributes = {
        "tree_roots": list(range(count)),
        "n_targets": 1,
        "nodes_featureids": [0] * count,
        "nodes_modes": tensor([6] * count, np.uint8),
        "nodes_splits": tensor([0] * count, dtype),
        "nodes_truenodeids": [2 * n for n in range(count)],
        "nodes_falsenodeids": [2 * n + 1 for n in range(count)],
        "nodes_trueleafs": [1] * count,
        "nodes_falseleafs": [1] * count,
        "nodes_missing_value_tracks_true": [tracks] * count,
        "leaf_targetids": [0] * (2 * count),
        "leaf_weights": tensor([w for n in range(count) for w in (2**n, 0)], dtype),
        "membership_values": tensor([v for each in sets for v in (*each, np.nan)], dtype),
    }
    attributes = {n: v for n, v in (attributes | changed).items() if v is not None}
    value: list[Value] = [("x", dtype, (rows, 1))]
    outputs: list[Value] = [("z", dtype, (rows, 1))]
    return one_node("TreeEnsemble", value, outputs, opset=5, **attributes)


SETS = [[3.0], [1.0, 2.0, 5.0], [-1.0, 0.0], [7.0, 2.5, -np.inf, np.inf], floats(range(40))]


@pytest.mark.parametrize("tracks", [0, 1])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_members_of_a_set_are_those_values_exactly(dtype: Any, tracks: int) -> None:
    asked = np.array([*range(-2, 42), 2.5, 1.001, -0.0, np.inf, -np.inf, np.nan], dtype)
    network = ensemble(dtype, len(asked), SETS, tracks)
    compiled = compile_network(network, load_target(EXTREMES[0]))
    (answer,) = run(compiled, [asked.reshape(-1, 1)])
    members = [np.isin(asked, np.array(each, dtype)) | (np.isnan(asked) & tracks) for each in SETS]
    wanted = sum(2**number * inside.astype(dtype) for number, inside in enumerate(members))
    assert answer.dtype == dtype
    assert answer.ravel().tolist() == wanted.tolist()


def test_nodes_and_leaves_by_position_are_walked_as_in_onnx_runtime() -> None:
    network = ensemble(
        np.float32,
        30,
        [],
        tree_roots=[0, 3],
        n_targets=2,
        aggregate_function=1,
        nodes_featureids=[0, 1, 0, 2],
        nodes_modes=tensor([0, 3, 4, 2], np.uint8),
        nodes_splits=tensor([0, 0.5, 1, -1], np.float32),
        nodes_truenodeids=[1, 0, 2, 4],
        nodes_falsenodeids=[2, 1, 3, 5],
        nodes_trueleafs=[0, 1, 1, 1],
        nodes_falseleafs=[0, 1, 1, 1],
        nodes_missing_value_tracks_true=[1, 0, 1, 0],
        leaf_targetids=[0, 1, 0, 1, 0, 1],
        leaf_weights=tensor([1, 2, 4, 8, 16, 32], np.float32),
        membership_values=None,
    )
    network.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", 1, [30, 3]))
    network.graph.output[0].CopyFrom(helper.make_tensor_value_info("z", 1, [30, 2]))
    (answer,), _ = agree(network, features(np.random.default_rng(1), (30, 3), np.float32, nan=True))
    assert len(np.unique(answer)) >= 6


@pytest.mark.parametrize("transform", [1, 2])
def test_numbers_of_transforms_that_onnx_runtime_exchanges_are_refused(transform: int) -> None:
    with pytest.raises(ModelError, match="understand differently"):
        frontend.to_relax(ensemble(np.float32, 1, [[1.0]], post_transform=transform))


GOOD = [[(0, 1.0)], [(0, 2.0)]]
DAMAGED: dict[str, tuple[Attributes, str]] = {
    "feature": ({"nodes_featureids": [4, 0, 0]}, "feature 4 of 3"),
    "negative feature": ({"nodes_featureids": [-1, 0, 0]}, "feature -1 of 3"),
    "no such child": ({"nodes_truenodeids": [9, 0, 0]}, "node 9 of tree 0, a child, is not there"),
    "child of another tree": (
        {"nodes_treeids": [0, 0, 1], "target_treeids": [0, 1]},
        "node 2 of tree 0, a child, is not there",
    ),
    "own child": (
        {"nodes_nodeids": [3, 1, 2], "nodes_truenodeids": [3, 0, 0]},
        "the first node of a tree is not its root",
    ),
    "cycle": (
        {
            "nodes_modes": ["BRANCH_LEQ", "BRANCH_LT", "LEAF"],
            "nodes_truenodeids": [1, 1, 0],
            "nodes_falsenodeids": [2, 2, 0],
            "target_nodeids": [2, 2],
        },
        "leads back to itself",
    ),
    "root not first": (
        {
            "nodes_nodeids": [1, 0, 2],
            "nodes_modes": ["LEAF", "BRANCH_LEQ", "LEAF"],
            "nodes_truenodeids": [0, 1, 0],
            "nodes_falsenodeids": [0, 2, 0],
        },
        "the first node of a tree is not its root",
    ),
    "twice": ({"nodes_nodeids": [0, 1, 1]}, "node 1 of tree 0 occurs twice"),
    "leaf": ({"target_nodeids": [1, 7]}, "node 7 of tree 0, a leaf, is not there"),
    "target": ({"target_ids": [0, 1]}, "a leaf is for target 1 of 1"),
    "negative target": ({"target_ids": [-1, 0]}, "a leaf is for target -1 of 1"),
    "no votes": (
        {f"target_{n}": None for n in ("treeids", "nodeids", "ids", "weights")},
        "no leaf",
    ),
    "NaN": ({"target_weights": [1.0, float("nan")]}, "the weight of a leaf is NaN"),
    "lengths": ({"nodes_values": [0.0]}, "differ in length"),
    "votes' lengths": ({"target_weights": [1.0]}, "differ in length"),
    "mode": ({"nodes_modes": ["BRANCH_ODD", "LEAF", "LEAF"]}, "nodes of mode BRANCH_ODD"),
    "aggregate": ({"aggregate_function": "MEDIAN"}, "aggregate_function is 'MEDIAN'"),
    "transform": ({"post_transform": "SQUARE"}, "post_transform is 'SQUARE'"),
    "base values": ({"base_values": [1.0, 2.0]}, "2 base_values for 1 targets"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_trees_are_refused_by_the_name_of_their_node(case: str) -> None:
    changed, reason = DAMAGED[case]
    attributes = stump("target", GOOD, **changed)
    network = regressor(
        "TreeEnsembleRegressor", np.float32, (2, 3), 1, opset=3, n_targets=1, **attributes
    )
    with pytest.raises(ModelError, match=r"TreeEnsembleRegressor 'it'") as refused:
        frontend.to_relax(network)
    assert reason in str(refused.value)


DAMAGED_POSITIONS: dict[str, tuple[Attributes, str]] = {
    "node": ({"nodes_trueleafs": [0, 1], "nodes_truenodeids": [2, 2]}, "nodes_truenodeids"),
    "leaf": ({"nodes_falsenodeids": [1, 4]}, "nodes_falsenodeids"),
    "negative": ({"nodes_falsenodeids": [1, -1]}, "nodes_falsenodeids"),
    "cycle": ({"nodes_trueleafs": [0, 0], "nodes_truenodeids": [1, 0]}, "leads back to itself"),
    "root": ({"tree_roots": [2]}, "tree_roots"),
    "no roots": ({"tree_roots": None}, "tree_roots"),
    "feature": ({"nodes_featureids": [0, 1]}, "feature 1 of 1"),
    "target": ({"leaf_targetids": [0, 0, 0, 1]}, "target 1 of 1"),
    "sets": ({"membership_values": tensor([1.0], np.float32)}, "one set for each of 2 nodes"),
    "mode": ({"nodes_modes": tensor([6, 9], np.uint8)}, "stands for no comparison"),
    "lengths": ({"nodes_featureids": [0]}, "differ in length"),
}


@pytest.mark.parametrize("case", DAMAGED_POSITIONS)
def test_positions_that_are_not_there_are_refused(case: str) -> None:
    changed, reason = DAMAGED_POSITIONS[case]
    with pytest.raises(ModelError, match=r"TreeEnsemble 'it'") as refused:
        frontend.to_relax(ensemble(np.float32, 1, [[1.0], [2.0]], **changed))
    assert reason in str(refused.value)


def full_trees(trees: int, depth: int, width: int) -> Attributes:
    """Trees with all leaves at the same depth, each tree for one of 100 classes."""
    generator = np.random.default_rng(2)
    inner, count = 2**depth - 1, 2 ** (depth + 1) - 1
    node = np.tile(np.arange(count), trees)
    leaf = node >= inner
    places = np.flatnonzero(leaf)
    return {
        "nodes_treeids": np.repeat(np.arange(trees), count).tolist(),
        "nodes_nodeids": node.tolist(),
        "nodes_featureids": np.where(leaf, 0, generator.integers(0, width, len(node))).tolist(),
        "nodes_values": floats(np.where(leaf, 0, generator.standard_normal(len(node)))),
        "nodes_modes": np.where(leaf, "LEAF", "BRANCH_LEQ").tolist(),
        "nodes_truenodeids": np.where(leaf, 0, 2 * node + 1).tolist(),
        "nodes_falsenodeids": np.where(leaf, 0, 2 * node + 2).tolist(),
        "class_treeids": (places // count).tolist(),
        "class_nodeids": node[places].tolist(),
        "class_ids": (places // count % 100).tolist(),
        "class_weights": floats(generator.standard_normal(len(places))),
    }


def test_a_large_ensemble_is_tables_in_the_weights_and_threads_share_it() -> None:
    trees, depth, width = 300, 7, 20
    network = classifier(
        "TreeEnsembleClassifier",
        np.float32,
        (11, width),
        100,
        opset=3,
        classlabels_int64s=list(range(100)),
        post_transform="SOFTMAX",
        **full_trees(trees, depth, width),
    )
    asked = np.random.default_rng(3).standard_normal((11, width)).astype(np.float32)
    answer, compiled = agree(network, asked)
    nodes, leaves = trees * 255, trees * 128
    assert len(compiled.plan.weights) < 16 * nodes + 12 * leaves + 10_000
    with threads(4):
        shared = run(compiled, [asked])
    assert [a.tobytes() for a in answer] == [a.tobytes() for a in shared]
    assert len(set(answer[0].tolist())) > 3


def test_forests_of_scikit_learn_agree_with_onnx_runtime() -> None:
    from sklearn import ensemble as forests

    chosen = [
        (forests.RandomForestClassifier(20, random_state=0), "iris"),
        (forests.RandomForestClassifier(20, random_state=0), "breast_cancer"),
        (forests.GradientBoostingClassifier(n_estimators=10, random_state=0), "wine"),
        (forests.AdaBoostClassifier(n_estimators=3, random_state=0), "iris"),
        (forests.IsolationForest(n_estimators=4, random_state=0), "iris"),
    ]
    for estimator, name in chosen:
        network, rows = exported(estimator, name, rows=9)
        answers, _ = agree(network, rows)
        assert all(len(np.unique(answer)) > 1 for answer in answers), type(estimator).__name__


def test_missing_values_take_their_own_way_through_a_forest() -> None:
    generator = np.random.default_rng(5)
    forest = Forest(generator, 20, 5, width=2)
    attributes = forest.attributes("target", [0], lambda: floats(generator.standard_normal())[0])
    network = regressor(
        "TreeEnsembleRegressor", np.float32, (3, 2), 1, opset=3, n_targets=1, **attributes
    )
    asked = np.array([[0.25, 0.25], [np.nan, 0.25], [np.nan, np.nan]], np.float32)
    (answer,), _ = agree(network, asked)
    assert len(np.unique(answer)) == 3

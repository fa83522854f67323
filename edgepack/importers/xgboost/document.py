"""XGBoost's model document: read from JSON or UBJSON, checked, and cut down to what predictions need.

XGBoost itself trusts the document, and dies of some damaged ones; it is given what is made here.
Its structure is that of XGBoost's doc/model.schema.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from edgepack.errors import ModelError
from edgepack.importers.trees import levels
from edgepack.importers.xgboost import ubjson

JSON = re.compile(rb'\s*\{\s*("version"\s*:\s*\[[\d\s,]*\]\s*,\s*)?"learner"\s*:\s*\{')
UBJSON = re.compile(rb"\{[UiIlL]\0*\x07learner\{")

_NO_PARENT = 2147483647
_CATEGORIES = 1 << 24
_FEATURES = 1 << 24
_NO_CATEGORIES: dict[str, list[int]] = {"enc": [], "feature_segments": [], "sorted_idx": []}
_STATISTICS = ("base_weights", "loss_changes", "sum_hessian")

Json = dict[str, Any]


def read(path: Path) -> Json:
    """The document as it is. Raises ValueError, RecursionError and OSError."""
    content = path.read_bytes()
    document = ubjson.loads(content) if UBJSON.match(content) else json.loads(content)
    if not isinstance(document, dict):
        raise ValueError("it is no object")
    return document


def cleaned(document: Json) -> Json:
    """The document with what predictions depend on, and lists that agree with one another.

    Raises ModelError for a booster that is not supported; KeyError, TypeError, ValueError and their
    like for a damaged document.
    """
    learner = document["learner"]
    parameters = learner["learner_model_param"]
    numbers = {"num_class": "0", "num_feature": "", "num_target": "1"}
    numbers = {name: str(int(parameters.get(name, numbers[name]))) for name in numbers}
    features = int(numbers["num_feature"])
    outputs = max(1, int(numbers["num_class"]), int(numbers["num_target"]))
    if not 0 < features < _FEATURES or outputs > _FEATURES:
        raise ValueError(f"it has {features} features and {outputs} outputs")
    scores = [float(word) for word in parameters["base_score"].strip("[]").split(",")]
    if len(scores) not in (1, outputs):
        raise ValueError(f"it has {len(scores)} base scores for {outputs} outputs")
    return {
        "version": [int(number) for number in document["version"]],
        "learner": {
            "attributes": {k: str(v) for k, v in learner["attributes"].items()},
            "feature_names": _of_features(learner, "feature_names", features),
            "feature_types": _of_features(learner, "feature_types", features),
            "gradient_booster": _booster(learner["gradient_booster"], features, outputs),
            "learner_model_param": {
                **numbers,
                "base_score": parameters["base_score"],
                "boost_from_average": "1",
            },
            "objective": learner["objective"],
        },
    }


def _of_features(learner: Json, name: str, features: int) -> list[str]:
    words = [str(word) for word in learner.get(name, ())]
    if len(words) not in (0, features):
        raise ValueError(f"{name} has {len(words)} entries for {features} features")
    return words


def _booster(booster: Json, features: int, outputs: int) -> Json:
    name = booster["name"]
    if name not in ("gbtree", "dart"):
        raise ModelError(
            f"XGBoost's booster {name!r} is not supported", "boosters that are: gbtree, dart"
        )
    if name == "gbtree":
        return {"name": name, "model": _model(booster["model"], features, outputs)}
    model = _model(booster["gbtree"]["model"], features, outputs)
    return {
        "name": name,
        "gbtree": {"name": "gbtree", "model": model},
        "weight_drop": _floats(booster, "weight_drop", len(model["trees"])),
    }


def _model(model: Json, features: int, outputs: int) -> Json:
    count = len(model["trees"])
    targets = _integers(model, "tree_info", count)
    if any(not 0 <= target < outputs for target in targets):
        raise ValueError(f"a tree is for an output that is none of {outputs}")
    parallel = int(model["gbtree_model_param"].get("num_parallel_tree", "1"))
    if parallel < 1:
        raise ValueError(f"a round has {parallel} trees")
    rounds = model.get("iteration_indptr") or [*range(0, count + 1, outputs * parallel)]
    if rounds[0] != 0 or rounds[-1] != count or sorted(rounds) != rounds:
        raise ValueError("its rounds of boosting do not hold all of its trees")
    return {
        "cats": _NO_CATEGORIES,
        "gbtree_model_param": {"num_parallel_tree": str(parallel), "num_trees": str(count)},
        "iteration_indptr": rounds,
        "tree_info": targets,
        "trees": [_tree(tree, features, number) for number, tree in enumerate(model["trees"])],
    }


def _tree(tree: Json, features: int, number: int) -> Json:
    """A tree level by level, siblings beside each other, without the nodes that were pruned."""
    import numpy as np

    if tree["tree_param"].get("size_leaf_vector", "1") not in ("0", "1"):
        raise ModelError(
            "XGBoost's trees with several values in a leaf are not supported",
            "train with multi_strategy='one_output_per_tree'",
        )
    count = int(tree["tree_param"]["num_nodes"])
    left, right, index, default = (
        np.array(_integers(tree, name, count))
        for name in ("left_children", "right_children", "split_indices", "default_left")
    )
    order = np.concatenate(levels(left, right))
    nodes = len(order)
    place = np.full(count, -1)
    place[order] = np.arange(nodes)
    inner = left[order] >= 0
    left, right = (np.where(inner, place[side[order]], -1) for side in (left, right))
    parents = np.full(nodes, _NO_PARENT)
    parents[left[inner]] = parents[right[inner]] = np.flatnonzero(inner)
    conditions = np.array(_floats(tree, "split_conditions", count))
    sizes = {"num_deleted": 0, "num_feature": features, "num_nodes": nodes, "size_leaf_vector": 1}
    return {
        "id": number,
        "tree_param": {name: str(size) for name, size in sizes.items()},
        "left_children": left.tolist(),
        "right_children": right.tolist(),
        "parents": parents.tolist(),
        "split_indices": np.where(inner, index[order], 0).tolist(),
        "split_conditions": conditions[order].tolist(),
        "default_left": (default[order] > 0).astype(int).tolist(),
        **{name: [0.0] * nodes for name in _STATISTICS},
        **_categories(tree, {int(node): int(place[node]) for node in order[inner]}, nodes),
    }


def _categories(tree: Json, places: dict[int, int], nodes: int) -> Json:
    """Sets of categories: lists of nodes, of where each set begins, of its size, and of them all."""
    sets: dict[int, list[int]] = {}
    every = tree.get("categories", [])
    for node, first, size in zip(
        tree.get("categories_nodes", ()),
        tree.get("categories_segments", ()),
        tree.get("categories_sizes", ()),
        strict=True,
    ):
        codes = [int(code) for code in every[first : first + size]]
        if len(codes) != size or not all(0 <= code < _CATEGORIES for code in codes):
            raise ValueError(f"node {node} has no such categories")
        if node in places:
            sets[places[node]] = codes
    sizes = [len(sets[node]) for node in sorted(sets)]
    return {
        "split_type": [int(node in sets) for node in range(nodes)],
        "categories": [code for node in sorted(sets) for code in sets[node]],
        "categories_nodes": sorted(sets),
        "categories_segments": [sum(sizes[:i]) for i in range(len(sizes))],
        "categories_sizes": sizes,
    }


def _integers(place: Json, name: str, count: int) -> list[int]:
    return [int(number) for number in _listed(place, name, count)]


def _floats(place: Json, name: str, count: int) -> list[float]:
    return [float(number) for number in _listed(place, name, count)]


def _listed(place: Json, name: str, count: int) -> list[Any]:
    found = place[name]
    if not isinstance(found, list) or len(found) != count:
        raise ValueError(f"{name} has not {count} numbers")
    return found

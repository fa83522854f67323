"""XGBoost models: known by content, converted tree by tree, and answering as XGBoost does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xgboost

from edgepack.importers import detect
from tests.tabular import agrees, at_thresholds, imported, refused, table, unseen

Parameters = dict[str, Any]

DART = {"booster": "dart", "rate_drop": 0.3}
OBJECTIVES: list[tuple[str, str, Parameters]] = [
    ("reg:squarederror", "diabetes", {}),
    ("reg:squaredlogerror", "diabetes", {}),
    ("reg:absoluteerror", "diabetes", {}),
    ("reg:pseudohubererror", "diabetes", {}),
    ("reg:quantileerror", "diabetes", {"quantile_alpha": [0.1, 0.5, 0.9]}),
    ("reg:gamma", "diabetes", {}),
    ("reg:tweedie", "diabetes", {}),
    ("count:poisson", "diabetes", {}),
    ("survival:cox", "diabetes", {}),
    ("survival:aft", "diabetes", {}),
    ("reg:logistic", "breast_cancer", {}),
    ("binary:logistic", "breast_cancer", {}),
    ("binary:logistic", "breast_cancer", {"base_score": 0.2}),
    ("binary:logitraw", "breast_cancer", {}),
    ("rank:pairwise", "iris", {}),
    ("rank:ndcg", "iris", {}),
    ("rank:map", "breast_cancer", {}),
    ("multi:softprob", "iris", {"num_class": 3}),
    ("multi:softmax", "iris", {"num_class": 3}),
    ("multi:softprob", "iris", {"num_class": 3, **DART}),
    ("reg:squarederror", "diabetes", DART),
]


def matrix(rows: np.ndarray, targets: np.ndarray | None, objective: str = "") -> xgboost.DMatrix:
    data = xgboost.DMatrix(rows, targets)
    if objective.startswith("rank:"):
        data.set_group([len(rows) // 2, len(rows) - len(rows) // 2])
    if objective == "survival:aft":
        data.set_float_info("label_lower_bound", targets)
        data.set_float_info("label_upper_bound", targets)
    return data


def trained(
    objective: str, data: str, parameters: Parameters, rounds: int = 5
) -> tuple[xgboost.Booster, np.ndarray]:
    """A booster, and rows that it has not seen, some values missing."""
    rows, targets = table(data)
    if data == "diabetes":
        targets = targets / 100
    if targets.max() > 1 and objective == "rank:map":
        targets = targets > 0
    settings = {"objective": objective, "max_depth": 4, "nthread": 1, **parameters}
    seen = unseen(rows, nan=0.1, seed=1)
    booster = xgboost.train(settings, matrix(seen, targets, objective), rounds)
    return booster, unseen(rows, nan=0.1)


def saved(booster: xgboost.Booster | xgboost.XGBModel, path: Path) -> Path:
    booster.save_model(path)
    return path


@pytest.fixture(scope="module")
def iris(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One classifier in both forms."""
    booster = trained("multi:softprob", "iris", {"num_class": 3}, 3)[0]
    folder = tmp_path_factory.mktemp("iris")
    return {form: saved(booster, folder / f"model.{form}") for form in ("json", "ubj")}


@pytest.mark.parametrize(("objective", "data", "parameters"), OBJECTIVES)
def test_every_objective_answers_as_xgboost_does(
    objective: str, data: str, parameters: Parameters, tmp_path: Path
) -> None:
    model, rows = trained(objective, data, parameters)
    path = saved(model, tmp_path / "model.json")
    _, original = agrees(path, rows)
    # The original is read back from the file: hold it against the booster that was saved.
    raw = model.predict(xgboost.DMatrix(rows))
    if objective == "multi:softmax":
        assert np.array_equal(original["label"], raw)
    elif "label" in original:
        probabilities = raw if raw.ndim == 2 else np.stack([1 - raw, raw], axis=1)
        assert np.array_equal(original["probabilities"], probabilities)
        assert np.array_equal(original["label"], probabilities.argmax(axis=1))
    else:
        assert np.array_equal(original["variable"].ravel(), raw.ravel())


@pytest.mark.parametrize("form", ["json", "ubj"])
def test_both_forms_are_known_by_content_and_say_the_same(
    form: str, iris: dict[str, Path], tmp_path: Path
) -> None:
    renamed = tmp_path / "model.bin"
    renamed.write_bytes(iris[form].read_bytes())
    assert detect(renamed).format == "xgboost"
    rows = unseen(table("iris")[0], nan=0.1)
    model, original = agrees(renamed, rows)
    assert model.framework == "XGBoost"
    assert np.array_equal(original["probabilities"], agrees(iris["json"], rows)[1]["probabilities"])


def test_json_that_others_have_formatted_is_read(iris: dict[str, Path], tmp_path: Path) -> None:
    document = json.loads(iris["json"].read_text())
    path = tmp_path / "pretty.json"
    path.write_text(json.dumps({"version": document["version"], **document}, indent=2))
    assert detect(path).format == "xgboost"
    agrees(path, unseen(table("iris")[0]))


def test_document_of_an_older_version_is_read(tmp_path: Path) -> None:
    booster, rows = trained("binary:logistic", "breast_cancer", {"base_score": 0.2})
    document = json.loads(saved(booster, tmp_path / "new.json").read_text())
    learner = document["learner"]
    learner["learner_model_param"] = {"base_score": "2E-1", "num_class": "0", "num_feature": "30"}
    model = learner["gradient_booster"]["model"]
    del model["cats"], model["iteration_indptr"]
    for tree in model["trees"]:
        for name in ("", "_nodes", "_segments", "_sizes"):
            del tree[f"categories{name}"]
        tree["default_left"] = [bool(flag) for flag in tree["default_left"]]
    (tmp_path / "old.json").write_text(json.dumps({"learner": learner, "version": [1, 2, 0]}))
    _, original = agrees(tmp_path / "old.json", rows)
    wanted = booster.predict(xgboost.DMatrix(rows))
    assert np.array_equal(original["probabilities"][:, 1], wanted)


def test_values_at_a_threshold_take_the_branch_that_they_take_in_xgboost(
    iris: dict[str, Path],
) -> None:
    rows = unseen(table("iris")[0])
    agrees(iris["json"], at_thresholds(imported(iris["json"], rows.shape).model, rows))


@pytest.mark.parametrize("one_by_one", [1, 20, 100])
def test_categories_are_told_as_xgboost_tells_them(one_by_one: int, tmp_path: Path) -> None:
    source = np.random.default_rng(4)
    rows = np.stack(
        [source.integers(0, 12, 1500), source.integers(0, 40, 1500), source.normal(size=1500)], 1
    ).astype(np.float32)
    targets = np.sin(rows[:, 0] * 7) + np.cos(rows[:, 1] * 3) * rows[:, 2]
    rows[source.random(rows.shape) < 0.1] = np.nan
    data = xgboost.DMatrix(rows, targets, feature_types=["c", "c", "q"], enable_categorical=True)
    booster = xgboost.train({"max_cat_to_onehot": one_by_one, "max_depth": 6}, data, 8)
    # Codes beyond those that it has seen, negative ones and fractions among them.
    strange = (source.normal(size=(1500, 3)) * 20).astype(np.float32)
    agrees(saved(booster, tmp_path / "model.ubj"), np.concatenate([rows, strange]))


def test_several_trees_a_round_and_pruned_trees_are_read(tmp_path: Path) -> None:
    parameters = {"num_parallel_tree": 3, "gamma": 3, "tree_method": "exact", "max_depth": 8}
    booster, rows = trained("binary:logistic", "breast_cancer", parameters)
    agrees(saved(booster, tmp_path / "model.json"), rows)


def test_several_targets_make_several_columns(tmp_path: Path) -> None:
    rows, targets = table("diabetes")
    booster = xgboost.train({}, xgboost.DMatrix(rows, np.stack([targets, -targets], 1)), 5)
    model, _ = agrees(saved(booster, tmp_path / "model.json"), unseen(rows))
    assert model.outputs[0].shape == (len(rows), 2)


def test_several_labels_make_several_columns(tmp_path: Path) -> None:
    rows, targets = table("iris")
    labels = np.stack([targets == 0, targets > 0, targets == 2], 1).astype(int)
    classifier = xgboost.XGBClassifier(n_estimators=5).fit(rows, labels)
    _, original = agrees(saved(classifier, tmp_path / "model.json"), unseen(rows))
    wanted = classifier.predict_proba(unseen(rows))
    assert np.array_equal(original["variable"], wanted)


def test_early_stopping_counts_where_the_interface_that_saved_counts_it(tmp_path: Path) -> None:
    rows, targets = table("breast_cancer")
    classifier = xgboost.XGBClassifier(n_estimators=60, early_stopping_rounds=3, learning_rate=1.0)
    classifier.fit(rows[::2], targets[::2], eval_set=[(rows[1::2], targets[1::2])], verbose=False)
    best = classifier.best_iteration + 1
    new = unseen(rows)
    model, original = agrees(saved(classifier, tmp_path / "wrapped.json"), new)
    assert model.notes == (f"early stopping: the first {best} rounds of boosting are used",)
    assert np.array_equal(original["probabilities"], classifier.predict_proba(new))
    booster = classifier.get_booster()
    model, original = agrees(saved(booster, tmp_path / "bare.json"), new)
    assert f"save booster[:{best}]" in model.notes[0]
    assert np.array_equal(original["probabilities"][:, 1], booster.predict(xgboost.DMatrix(new)))


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"booster": "gblinear"}, "booster 'gblinear'"),
        ({"objective": "binary:hinge"}, "objective 'binary:hinge'"),
        (
            {"multi_strategy": "multi_output_tree", "tree_method": "hist"},
            "several values in a leaf",
        ),
    ],
)
def test_what_is_not_supported_is_named(parameters: Parameters, named: str, tmp_path: Path) -> None:
    rows, targets = table("breast_cancer")
    if "multi_strategy" in parameters:
        targets = np.stack([targets, 1 - targets], 1)
    booster = xgboost.train(parameters, xgboost.DMatrix(rows, targets), 2)
    error = refused(saved(booster, tmp_path / "model.json"))
    assert named in error.message
    assert error.hint


def test_booster_without_trees_is_refused(tmp_path: Path) -> None:
    rows, targets = table("iris")
    booster = xgboost.train({}, xgboost.DMatrix(rows, targets), 0)
    assert "no trees" in refused(saved(booster, tmp_path / "model.json")).message

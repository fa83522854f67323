"""LightGBM models: known by content, converted tree by tree, and answering as LightGBM does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest

from edgepack.errors import ModelError
from edgepack.importers import detect
from tests.tabular import (
    agrees,
    at_thresholds,
    endures_changed_bytes,
    imported,
    needs,
    refused,
    table,
    unseen,
)

Parameters = dict[str, Any]

FOREST = {"boosting": "rf", "bagging_fraction": 0.5, "bagging_freq": 1}
OBJECTIVES: list[tuple[str, str, Parameters]] = [
    ("regression", "diabetes", {}),
    ("regression", "diabetes", {"reg_sqrt": True}),
    ("regression", "diabetes", {"boosting": "dart"}),
    ("regression", "diabetes", FOREST),
    ("regression_l1", "diabetes", {}),
    ("huber", "diabetes", {}),
    ("fair", "diabetes", {}),
    ("quantile", "diabetes", {}),
    ("mape", "diabetes", {}),
    ("poisson", "diabetes", {}),
    ("gamma", "diabetes", {}),
    ("tweedie", "diabetes", {}),
    ("binary", "breast_cancer", {}),
    ("binary", "breast_cancer", {"sigmoid": 2.5}),
    ("binary", "breast_cancer", FOREST),
    ("cross_entropy", "breast_cancer", {}),
    ("cross_entropy_lambda", "breast_cancer", {}),
    ("multiclass", "iris", {"num_class": 3}),
    ("multiclass", "iris", {"num_class": 3, **FOREST}),
    ("multiclassova", "iris", {"num_class": 3, "sigmoid": 0.7}),
    ("lambdarank", "iris", {}),
    ("rank_xendcg", "iris", {}),
]


def trained(
    objective: Any,
    rows: np.ndarray,
    targets: np.ndarray,
    parameters: Parameters | None = None,
    **data: Any,
) -> lightgbm.Booster:
    quiet = {"verbosity": -1, "num_threads": 1, "min_data_in_leaf": 5}
    settings = {"objective": objective, **quiet, **(parameters or {})}
    return lightgbm.train(settings, lightgbm.Dataset(rows, targets, **data), 6)


def saved(booster: lightgbm.Booster, path: Path) -> Path:
    booster.save_model(path)
    return path


def some_zeros(rows: np.ndarray) -> np.ndarray:
    rows = rows.copy()
    rows[np.random.default_rng(2).random(rows.shape) < 0.2] = 0
    return rows


@pytest.fixture(scope="module")
def iris(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows, targets = table("iris")
    booster = trained("multiclass", rows, targets, {"num_class": 3, "num_leaves": 6})
    return saved(booster, tmp_path_factory.mktemp("iris") / "model.txt")


@pytest.mark.parametrize(("objective", "data", "parameters"), OBJECTIVES)
def test_every_objective_answers_as_lightgbm_does(
    objective: str, data: str, parameters: Parameters, tmp_path: Path
) -> None:
    rows, targets = table(data)
    seen = unseen(rows, nan=0.1, seed=1)
    group = [len(rows) // 2, len(rows) - len(rows) // 2] if "rank" in objective else None
    booster = trained(objective, seen, targets, parameters, group=group)
    new = unseen(rows, nan=0.1)
    _, original = agrees(saved(booster, tmp_path / "model.txt"), new)
    # The original is read back from the file: hold it against the booster that was saved.
    raw = np.asarray(booster.predict(new), np.float32)
    if "label" in original:
        probabilities = raw if raw.ndim == 2 else np.stack([1 - raw, raw], axis=1)
        assert np.array_equal(original["probabilities"], probabilities)
        assert np.array_equal(original["label"], probabilities.argmax(axis=1))
    else:
        assert np.array_equal(original["variable"].ravel(), raw)


@pytest.mark.parametrize("has_nan", [False, True], ids=["complete", "with NaN"])
@pytest.mark.parametrize(
    "parameters",
    [{}, {"zero_as_missing": True}, {"use_missing": False}],
    ids=["NaN is missing", "zero is missing", "nothing is missing"],
)
def test_missing_values_and_thresholds_are_taken_as_lightgbm_takes_them(
    parameters: Parameters, has_nan: bool, tmp_path: Path
) -> None:
    rows, targets = table("diabetes")
    seen = some_zeros(unseen(rows, nan=0.1 * has_nan, seed=1))
    path = saved(trained("regression", seen, targets, parameters), tmp_path / "model.txt")
    new = some_zeros(unseen(rows, nan=0.1))
    # Thresholds of 1e-35 among them, which LightGBM sets between zero and the rest.
    edges = at_thresholds(imported(path, rows.shape).model, new)
    agrees(path, np.concatenate([new, edges]))


@pytest.mark.parametrize(
    "parameters",
    [{}, {"max_cat_to_onehot": 1, "min_data_per_group": 1, "cat_smooth": 1}],
    ids=["few categories", "many categories"],
)
def test_categories_are_told_as_lightgbm_tells_them(parameters: Parameters, tmp_path: Path) -> None:
    source = np.random.default_rng(4)
    rows = np.stack(
        [source.integers(0, 12, 1500), source.integers(0, 40, 1500), source.normal(size=1500)], 1
    ).astype(np.float32)
    targets = np.sin(rows[:, 0] * 7) + np.cos(rows[:, 1] * 3) * rows[:, 2]
    rows[source.random(rows.shape) < 0.1] = np.nan
    booster = trained("regression", rows, targets, parameters, categorical_feature=[0, 1])
    # Codes beyond those that it has seen, negative ones and fractions among them.
    strange = (source.normal(size=(1500, 3)) * 20).astype(np.float32)
    agrees(saved(booster, tmp_path / "model.txt"), np.concatenate([rows, strange]))


def test_objective_of_the_users_own_gives_the_sums(tmp_path: Path) -> None:
    rows, targets = table("diabetes")

    def squares(answer: np.ndarray, data: lightgbm.Dataset) -> tuple[np.ndarray, np.ndarray]:
        return answer - np.asarray(data.get_label()), np.ones_like(answer)

    agrees(saved(trained(squares, rows, targets), tmp_path / "model.txt"), unseen(rows))


def test_early_stopping_needs_nothing_as_the_file_ends_at_the_best_round(tmp_path: Path) -> None:
    rows, targets = table("breast_cancer")
    seen = lightgbm.Dataset(rows[::2], targets[::2])
    booster = lightgbm.train(
        {"objective": "binary", "learning_rate": 0.5, "verbosity": -1},
        seen,
        60,
        valid_sets=[lightgbm.Dataset(rows[1::2], targets[1::2], reference=seen)],
        callbacks=[lightgbm.early_stopping(2, verbose=False)],
    )
    path = saved(booster, tmp_path / "model.txt")
    new = unseen(rows)
    model, original = agrees(path, new)
    assert model.framework == "LightGBM"
    assert booster.best_iteration < 60
    wanted = np.asarray(booster.predict(new), np.float32)
    assert np.array_equal(original["probabilities"][:, 1], wanted)


def test_model_is_known_by_its_content(iris: Path, tmp_path: Path) -> None:
    renamed = tmp_path / "model.bin"
    renamed.write_bytes(iris.read_bytes())
    assert detect(renamed).format == "lightgbm"
    windows = tmp_path / "windows.txt"
    windows.write_bytes(iris.read_bytes().replace(b"\n", b"\r\n"))
    rows = unseen(table("iris")[0])
    assert detect(windows).format == "lightgbm"
    first, second = (agrees(path, rows)[1] for path in (renamed, windows))
    assert np.array_equal(first["probabilities"], second["probabilities"])


@pytest.mark.parametrize(
    "content", [b"", b"tree", b"tree\n", b"tree\nleaf=v4\n", b"a tree\nversion=v"]
)
def test_other_text_is_not_taken_for_a_lightgbm_model(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.txt"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="is not a model file that edgepack knows"):
        detect(path)


def test_linear_trees_are_refused(tmp_path: Path) -> None:
    rows, targets = table("diabetes")
    booster = trained("regression", rows, targets, {"linear_tree": True})
    error = refused(saved(booster, tmp_path / "model.txt"))
    assert error.message == "LightGBM's linear trees are not supported"


def test_objective_that_is_not_known_is_named(iris: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.txt"
    path.write_text(iris.read_text().replace("objective=multiclass ", "objective=of_tomorrow "))
    error = refused(path)
    assert "objective 'of_tomorrow'" in error.message
    assert "multiclassova" in error.hint


def test_model_without_trees_is_refused(iris: Path, tmp_path: Path) -> None:
    text = iris.read_text()
    path = tmp_path / "model.txt"
    path.write_text(text[: text.index("\nTree=")] + text[text.index("\nend of trees") :])
    assert "no trees" in refused(path).message


def test_zeros_that_are_missing_in_some_trees_only_are_refused(tmp_path: Path) -> None:
    rows, targets = table("diabetes")
    seen = some_zeros(unseen(rows))
    path = saved(trained("regression", seen, targets, {"zero_as_missing": True}), tmp_path / "m")
    head, tree, rest = path.read_text().partition("\nTree=1\n")
    lines = rest.split("\n")
    place = next(i for i, line in enumerate(lines) if line.startswith("decision_type="))
    lines[place] = lines[place].replace("6", "2").replace("4", "0")
    path.write_text(head + tree + "\n".join(lines))
    error = refused(path)
    assert "takes zeros for missing in some trees only" in error.message


def test_file_cut_short_anywhere_is_refused_until_its_trees_are_whole(
    iris: Path, tmp_path: Path
) -> None:
    content = iris.read_bytes()
    whole = content.index(b"end of trees\n") + len(b"end of trees\n")
    path = tmp_path / "cut.txt"
    for i in range(100):
        path.write_bytes(content[: whole * i // 100])
        assert "not a whole LightGBM model" in refused(path, format="lightgbm").message
    path.write_bytes(content[:whole])
    agrees(path, unseen(table("iris")[0]))


def test_changed_bytes_never_do_worse_than_an_error(iris: Path, tmp_path: Path) -> None:
    content = iris.read_bytes()
    content = content[: content.index(b"\nfeature_importances")]
    endures_changed_bytes(content, tmp_path / "changed.txt", "lightgbm", b"-0123456789")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("left_child=", "left_child=0 "),
        ("left_child=", "left_child=1.5 "),
        ("right_child=", "right_child=99 "),
        ("split_feature=", "split_feature=4 "),
        ("threshold=", "threshold=nan "),
        ("leaf_value=", "leaf_value=inf "),
        ("num_leaves=", "num_leaves=1"),
        ("num_tree_per_iteration=3", "num_tree_per_iteration=0"),
        ("max_feature_idx=3", "max_feature_idx=-1"),
    ],
)
def test_tree_that_is_none_is_refused(old: str, new: str, iris: Path, tmp_path: Path) -> None:
    before, found, after = iris.read_text().partition(old)
    assert found
    if new.endswith(" "):  # in place of the first number
        after = after.partition(" ")[2]
    path = tmp_path / "model.txt"
    path.write_text(before + new + after)
    assert "not a whole LightGBM model" in refused(path).message


def test_without_lightgbm_the_extra_is_named(iris: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs(iris, "lightgbm", "xgboost", monkeypatch)

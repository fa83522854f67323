"""Files of scikit-learn models: what must be trusted, what is refused, what is damaged or no such file."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
from sklearn import (
    calibration,
    covariance,
    ensemble,
    feature_selection,
    gaussian_process,
    isotonic,
    linear_model,
    model_selection,
    multioutput,
    naive_bayes,
    neighbors,
    neural_network,
    preprocessing,
    svm,
    tree,
)
from sklearn.pipeline import make_pipeline

from edgepack.errors import ModelError
from edgepack.importers import detect, import_model, sklearn
from edgepack.importers.protocol import ImportOptions
from tests.tabular import TREES, agrees, imported, needs, refused, saved, table, title, unseen

logistic = linear_model.LogisticRegression(max_iter=500)
scaled = preprocessing.StandardScaler

REFUSED: list[tuple[Any, str]] = [
    (covariance.EllipticEnvelope(), "EllipticEnvelope"),
    (make_pipeline(scaled(), neighbors.NearestCentroid()), "NearestCentroid"),
    (linear_model.SGDClassifier(loss="log_loss"), "SGDClassifier"),
    (calibration.CalibratedClassifierCV(svm.LinearSVC(), method="isotonic"), "isotonic"),
    (make_pipeline(scaled(), linear_model.SGDClassifier(loss="modified_huber")), "SGDClassifier"),
    (gaussian_process.GaussianProcessClassifier(), "GaussianProcessClassifier"),
    (neighbors.KNeighborsClassifier(metric="cosine"), "metric 'cosine'"),
    (neighbors.LocalOutlierFactor(novelty=True, metric="cosine"), "metric 'cosine'"),
    (ensemble.VotingClassifier([("a", logistic)]), "VotingClassifier"),
    (
        ensemble.HistGradientBoostingClassifier(max_iter=2, categorical_features=[0]),
        "categorical features",
    ),
    (
        make_pipeline(preprocessing.OneHotEncoder(min_frequency=3), logistic),
        "OneHotEncoder cannot be converted to ONNX: it puts rare categories together",
    ),
]


@pytest.mark.parametrize(("estimator", "named"), REFUSED, ids=lambda value: title(value)[:40])
def test_estimator_without_a_faithful_conversion_is_named(
    estimator: Any, named: str, tmp_path: Path
) -> None:
    rows, targets = table("iris")
    rows, targets = np.floor(rows), np.minimum(targets, 2)
    if "Gaussian" in named:
        rows, targets = rows[:100], targets[:100]
    path, trusted = saved(estimator, tmp_path / "m.skops", rows, targets)
    error = refused(path, *trusted)
    assert "cannot be converted to ONNX" in error.message
    assert named in error.message
    assert error.hint == "docs/models.md says which estimators can"


def test_threshold_that_would_be_lost_is_refused(tmp_path: Path) -> None:
    rows, targets = table("breast_cancer")
    tuned = model_selection.TunedThresholdClassifierCV(naive_bayes.GaussianNB())
    path, trusted = saved(tuned, tmp_path / "m.skops", rows, targets)
    error = refused(path, *trusted)
    assert "its threshold would be lost" in error.message


@pytest.mark.parametrize(
    "estimator",
    [
        ensemble.RandomForestClassifier(5),
        multioutput.MultiOutputClassifier(logistic),
        neural_network.MLPRegressor(hidden_layer_sizes=(4,), max_iter=20),
    ],
    ids=title,
)
def test_several_outputs_that_have_no_place_are_refused(estimator: Any, tmp_path: Path) -> None:
    rows, targets = table("iris")
    both = np.stack([targets, 2 - targets], axis=1)
    path, trusted = saved(estimator, tmp_path / "m.skops", rows, both)
    assert "cannot be converted to ONNX" in refused(path, *trusted).message


def test_input_that_scikit_learn_refuses_is_an_error_of_the_model(tmp_path: Path) -> None:
    rows, targets = table("iris")
    model = make_pipeline(preprocessing.OneHotEncoder(), logistic)
    path, trusted = saved(model, tmp_path / "m.skops", np.floor(rows), targets)
    original = imported(path, (2, 4), *trusted).original
    assert original is not None
    with pytest.raises(ModelError, match="scikit-learn refuses the input: Found unknown"):
        original({"X": np.full((2, 4), 0.5, np.float32)})


@pytest.mark.parametrize(
    "thing",
    [scaled(), {"weights": [1, 2]}, isotonic.IsotonicRegression().fit([1, 2, 3], [1, 2, 3])],
    ids=title,
)
def test_what_takes_no_matrix_is_refused(thing: Any, tmp_path: Path) -> None:
    skops.io.dump(thing, tmp_path / "m.skops")
    error = refused(tmp_path / "m.skops")
    assert type(thing).__name__ in error.message
    assert "not fitted or takes no matrix" in error.message


def test_types_must_be_trusted_by_name(tmp_path: Path) -> None:
    rows, targets = table("iris")
    model = make_pipeline(
        feature_selection.SelectKBest(k=2), tree.DecisionTreeClassifier(max_depth=2)
    )
    path, found = saved(model, tmp_path / "m.skops", rows, targets)
    assert len(found) == 2
    error = refused(path)
    assert all(name in error.message for name in found)
    assert "not known to be harmless" in error.message
    options = " ".join(f"--trust-type {name}" for name in sorted(found))
    assert error.hint == f"where you trust it, add {options}"
    error = refused(path, TREES)
    assert TREES not in error.message + error.hint
    agrees(path, unseen(rows), *found)


def test_trusting_one_type_trusts_no_other(tmp_path: Path) -> None:
    rows, targets = table("iris")
    model = make_pipeline(preprocessing.FunctionTransformer(_run_code), logistic)
    path, _ = saved(model, tmp_path / "m.skops", rows, targets)
    assert "_run_code" in refused(path, TREES).message


def _run_code(rows: np.ndarray) -> np.ndarray:
    return rows


def test_other_version_of_scikit_learn_is_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, targets = table("iris")
    with monkeypatch.context() as before:
        before.setattr("sklearn.base.__version__", "1.6.1")
        path, trusted = saved(logistic, tmp_path / "m.skops", rows, targets)
    (note,) = imported(path, (2, 4), *trusted).notes
    assert note.startswith("the model was saved by scikit-learn 1.6.1, and is read by ")


@pytest.fixture(scope="module")
def forest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("forest") / "m.skops"
    return saved(ensemble.RandomForestClassifier(2), path, *table("iris"))[0]


def test_model_is_known_by_its_content(forest: Path, tmp_path: Path) -> None:
    renamed = tmp_path / "model.zip"
    renamed.write_bytes(forest.read_bytes())
    assert detect(renamed).format == "sklearn"


def test_other_zips_are_not_taken_for_skops_files(tmp_path: Path) -> None:
    np.savez(tmp_path / "m.npz", X=np.ones(3))
    for name, entry in (("m.keras", "config.json"), ("m.zip", "schema.json")):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr(entry, '{"__version__": 1}')
    assert not [path.name for path in tmp_path.iterdir() if sklearn.recognise(path)]


def test_file_cut_short_anywhere_is_refused(forest: Path, tmp_path: Path) -> None:
    content = forest.read_bytes()
    path = tmp_path / "cut.skops"
    for i in range(60):
        path.write_bytes(content[: len(content) * i // 60])
        assert detect(path).format == "sklearn"
        assert "is not a whole skops file" in refused(path, TREES).message


def test_schema_that_does_not_fit_its_arrays_is_refused(forest: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(forest) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    schema = entries["schema.json"]
    arrays = [name for name in entries if name.endswith(".npy")]
    for number, change in enumerate(
        [
            {"schema.json": b""},
            {"schema.json": b"[]"},
            {"schema.json": schema.replace(b'"content"', b'"contents"', 1)},
            {"schema.json": json.dumps({**json.loads(schema), "__class__": "Ridge"}).encode()},
            {arrays[0]: b""},
            {arrays[-1]: entries[arrays[-1]][:-9]},
        ]
    ):
        path = tmp_path / f"{number}.skops"
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in {**entries, **change}.items():
                archive.writestr(name, content)
        refused(path, TREES)


@pytest.mark.parametrize("module", ["sklearn", "skops.io", "skl2onnx"])
def test_without_a_library_the_extra_is_named(
    module: str, forest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs(forest, module, "sklearn", monkeypatch)


def test_batch_must_be_given(forest: Path) -> None:
    with pytest.raises(ModelError, match="dynamic dimensions must be fixed") as caught:
        import_model(forest, {}, options=ImportOptions(trusted_types=(TREES,)))
    assert caught.value.hint == "Add --input X=DIM0,4"

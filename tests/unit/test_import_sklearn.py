"""scikit-learn models: every kind of estimator that is converted, held against its own answers."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
from sklearn import (
    calibration,
    cluster,
    compose,
    decomposition,
    discriminant_analysis,
    ensemble,
    feature_selection,
    gaussian_process,
    impute,
    linear_model,
    mixture,
    model_selection,
    multiclass,
    naive_bayes,
    neighbors,
    neural_network,
    preprocessing,
    svm,
    tree,
)
from sklearn.pipeline import make_pipeline, make_union

from tests.tabular import TREES, agrees, at_thresholds, imported, saved, table, title, unseen

logistic = linear_model.LogisticRegression(max_iter=500)
scaled = preprocessing.StandardScaler
names = np.array(["cat", "dog", "emu"])

CLASSIFIERS: list[Any] = [
    logistic,
    linear_model.RidgeClassifier(),
    linear_model.Perceptron(),
    linear_model.SGDClassifier(random_state=0),
    discriminant_analysis.LinearDiscriminantAnalysis(),
    discriminant_analysis.QuadraticDiscriminantAnalysis(),
    naive_bayes.GaussianNB(),
    svm.SVC(),
    svm.SVC(kernel="poly", decision_function_shape="ovo"),
    svm.LinearSVC(),
    neighbors.KNeighborsClassifier(),
    neighbors.KNeighborsClassifier(weights="distance", p=1),
    tree.DecisionTreeClassifier(),
    ensemble.RandomForestClassifier(20, random_state=0),
    ensemble.ExtraTreesClassifier(20, random_state=0),
    ensemble.GradientBoostingClassifier(n_estimators=5),
    ensemble.HistGradientBoostingClassifier(max_iter=5),
    ensemble.AdaBoostClassifier(n_estimators=5),
    ensemble.BaggingClassifier(n_estimators=3, random_state=0),
    ensemble.VotingClassifier([("a", logistic), ("b", naive_bayes.GaussianNB())], voting="soft"),
    ensemble.StackingClassifier([("a", logistic), ("b", naive_bayes.GaussianNB())]),
    neural_network.MLPClassifier((8,), solver="lbfgs", random_state=0),
    multiclass.OneVsRestClassifier(logistic),
    multiclass.OneVsOneClassifier(logistic),
    calibration.CalibratedClassifierCV(svm.LinearSVC()),
    make_pipeline(scaled(), decomposition.PCA(3), svm.LinearSVC()),
    make_pipeline(scaled(), neighbors.KNeighborsClassifier()),
    make_pipeline(make_union(scaled(), decomposition.PCA(2)), logistic),
    make_pipeline(feature_selection.SelectKBest(k=2), logistic),
    model_selection.GridSearchCV(make_pipeline(scaled(), svm.SVC()), {"svc__C": [1, 2]}),
    compose.make_column_transformer(
        (scaled(), [0, 2]), (preprocessing.MinMaxScaler(), slice(3, None)), remainder="passthrough"
    ),
]

REGRESSORS: list[Any] = [
    linear_model.LinearRegression(),
    linear_model.Ridge(),
    linear_model.ElasticNet(alpha=0.01),
    linear_model.PoissonRegressor(max_iter=500),
    svm.SVR(),
    svm.NuSVR(kernel="linear"),
    neighbors.KNeighborsRegressor(),
    neighbors.KNeighborsRegressor(weights="distance"),
    tree.DecisionTreeRegressor(max_depth=5),
    ensemble.RandomForestRegressor(10, random_state=0),
    ensemble.ExtraTreesRegressor(10, random_state=0),
    ensemble.GradientBoostingRegressor(n_estimators=10),
    ensemble.HistGradientBoostingRegressor(max_iter=10),
    ensemble.HistGradientBoostingRegressor(max_iter=10, loss="poisson"),
    ensemble.AdaBoostRegressor(n_estimators=5, random_state=0),
    neural_network.MLPRegressor(hidden_layer_sizes=(8,), max_iter=50, random_state=0),
    gaussian_process.GaussianProcessRegressor(alpha=1.0),
    make_pipeline(preprocessing.PolynomialFeatures(2), scaled(), linear_model.Ridge()),
    make_pipeline(preprocessing.PowerTransformer(), linear_model.Ridge()),
    make_pipeline(impute.SimpleImputer(), linear_model.Ridge()),
]

OTHERS: list[Any] = [
    cluster.KMeans(3, n_init=1, random_state=0),
    mixture.GaussianMixture(3, random_state=0),
    svm.OneClassSVM(nu=0.3, gamma=0.5),
    neighbors.LocalOutlierFactor(novelty=True, contamination=0.2),
    ensemble.IsolationForest(n_estimators=20, contamination=0.2, random_state=0),
    ensemble.IsolationForest(n_estimators=10, max_features=2, contamination=0.2, random_state=0),
    scaled(),
    preprocessing.Normalizer(),
    decomposition.PCA(2),
    decomposition.KernelPCA(2, kernel="rbf"),
    feature_selection.RFE(logistic, n_features_to_select=2),
    preprocessing.KBinsDiscretizer(4, encode="ordinal"),
]


@pytest.mark.parametrize("estimator", CLASSIFIERS, ids=title)
def test_classifier_answers_as_scikit_learn_does(estimator: Any, tmp_path: Path) -> None:
    rows, targets = table("iris")
    path, trusted = saved(estimator, tmp_path / "m.skops", rows, targets)
    model, original = agrees(path, unseen(rows), *trusted)
    assert model.framework == "scikit-learn"
    if hasattr(estimator, "predict"):
        wanted = estimator.predict(unseen(rows).astype(np.float64))
        assert np.array_equal(original["label"].ravel(), wanted)


@pytest.mark.parametrize("estimator", REGRESSORS, ids=title)
def test_regressor_answers_as_scikit_learn_does(estimator: Any, tmp_path: Path) -> None:
    rows, targets = table("diabetes")
    path, trusted = saved(estimator, tmp_path / "m.skops", rows * 20, targets / 100)
    agrees(path, unseen(rows * 20), *trusted)


@pytest.mark.parametrize("estimator", OTHERS, ids=title)
def test_other_estimator_answers_as_scikit_learn_does(estimator: Any, tmp_path: Path) -> None:
    rows, targets = table("iris")
    path, trusted = saved(estimator, tmp_path / "m.skops", rows, targets)
    agrees(path, unseen(rows), *trusted)


@pytest.mark.parametrize(
    "estimator",
    [
        logistic,
        svm.SVC(),
        linear_model.Perceptron(),
        svm.LinearSVC(),
        ensemble.HistGradientBoostingClassifier(max_iter=5),
        ensemble.RandomForestClassifier(20, random_state=0),
        naive_bayes.GaussianNB(),
    ],
    ids=title,
)
def test_two_classes_are_told_apart_as_scikit_learn_does(estimator: Any, tmp_path: Path) -> None:
    rows, targets = table("breast_cancer")
    rows = rows / rows.std(axis=0)
    path, trusted = saved(estimator, tmp_path / "m.skops", rows, targets * 5 - 3)
    _, original = agrees(path, unseen(rows), *trusted)
    assert set(original["label"]) == {-3, 2}
    scores = original["probabilities"]
    if scores.shape[1] == 2:  # the greater score is that of the label
        assert np.array_equal(scores.argmax(axis=1) * 5 - 3, original["label"])


@pytest.mark.parametrize(
    ("estimator", "kinds"),
    [
        (logistic, ("text", "bool", "float")),
        (svm.SVC(), ("text",)),
        (naive_bayes.GaussianNB(), ("text", "bool")),
        (neighbors.KNeighborsClassifier(), ("text", "bool", "float")),
        (ensemble.RandomForestClassifier(5, random_state=0), ("text", "bool", "float")),
        (ensemble.GradientBoostingClassifier(n_estimators=3), ("text", "float")),
        (ensemble.AdaBoostClassifier(n_estimators=3), ("text", "bool")),
        (ensemble.StackingClassifier([("a", logistic)], cv=2), ("text",)),
        (calibration.CalibratedClassifierCV(svm.LinearSVC(), cv=2), ("text",)),
        (neural_network.MLPClassifier((8,), solver="lbfgs", random_state=0), ("text", "bool")),
    ],
    ids=title,
)
def test_labels_are_numbers_whatever_they_were(
    estimator: Any, kinds: tuple[str, ...], tmp_path: Path
) -> None:
    rows, targets = table("iris")
    every = {"text": names[targets], "bool": targets > 0, "float": targets * 2.0}
    for kind in kinds:
        path, trusted = saved(estimator, tmp_path / "m.skops", rows, every[kind])
        model, original = agrees(path, unseen(rows), *trusted)
        said = estimator.predict(unseen(rows).astype(np.float64))
        label = original["label"].ravel()
        assert np.array_equal(names[label] if kind == "text" else label, said)
        listed = "0 = 'cat', 1 = 'dog', 2 = 'emu'"
        note = f"output 'label' is the number of the class: {listed}"
        assert model.notes == ((note,) if kind == "text" else ())


def test_forest_takes_every_branch_that_scikit_learn_takes(tmp_path: Path) -> None:
    rows, targets = table("digits")
    forest = ensemble.RandomForestClassifier(40, random_state=0)
    path, _ = saved(forest, tmp_path / "m.skops", unseen(rows, seed=1), targets)
    new = unseen(rows)
    edges = at_thresholds(imported(path, new.shape, TREES).model, new)
    every = np.concatenate([new, edges])
    # Equal, not near: votes are counted in whole numbers, and no threshold moves.
    agrees(path, every, TREES, tolerance=1e-7)


def test_votes_that_are_even_go_to_the_first_class(tmp_path: Path) -> None:
    rows, targets = table("breast_cancer")
    source = np.random.default_rng(1)
    forest = ensemble.RandomForestClassifier(100, max_depth=None, random_state=0)
    path, _ = saved(forest, tmp_path / "m.skops", rows, source.permutation(targets))
    new = unseen(rows)
    _, original = agrees(path, new, TREES)
    even = original["probabilities"][:, 0] == 0.5
    assert even.any()
    assert not original["label"][even].any()


@pytest.mark.parametrize(
    "estimator",
    [
        tree.DecisionTreeClassifier(max_depth=4),
        ensemble.RandomForestClassifier(20, random_state=0),
        ensemble.ExtraTreesRegressor(10, random_state=0),
        ensemble.HistGradientBoostingClassifier(max_iter=5),
        ensemble.IsolationForest(n_estimators=10, contamination=0.2, random_state=0),
        make_pipeline(impute.SimpleImputer(strategy="median"), logistic),
    ],
    ids=title,
)
def test_missing_values_go_where_scikit_learn_sends_them(estimator: Any, tmp_path: Path) -> None:
    rows, targets = table("iris")
    path, trusted = saved(estimator, tmp_path / "m.skops", unseen(rows, nan=0.1, seed=1), targets)
    agrees(path, unseen(rows, nan=0.2), *trusted)


@pytest.mark.parametrize("options", [{}, {"drop": "first"}, {"sparse_output": False}], ids=str)
def test_categories_that_are_numbers_are_compared_whole(
    options: dict[str, Any], tmp_path: Path
) -> None:
    rows, targets = table("iris")
    encoder = preprocessing.OneHotEncoder(handle_unknown="ignore", **options)
    model = make_pipeline(encoder, logistic)
    path, trusted = saved(model, tmp_path / "m.skops", np.floor(rows), targets)
    new = np.concatenate([np.floor(unseen(rows)), unseen(rows), np.float32(np.floor(rows) + 40)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of categories that it does not know
        agrees(path, new, *trusted)


def test_columns_by_name_become_columns_of_one_matrix(tmp_path: Path) -> None:
    rows, targets = table("iris")
    columns = compose.make_column_transformer(
        (scaled(), [3, 0]), (preprocessing.MinMaxScaler(), [1]), remainder="drop"
    )
    model = make_pipeline(columns, logistic)
    path, trusted = saved(model, tmp_path / "numbers.skops", rows, targets)
    _, by_number = agrees(path, unseen(rows), *trusted)
    # What fitting on a table with named columns leaves behind.
    columns.feature_names_in_ = np.array(["a", "b", "c", "d"], object)
    columns.transformers_ = [
        (name, inner, [columns.feature_names_in_[i] for i in places])
        for name, inner, places in columns.transformers_
    ]
    skops.io.dump(model, tmp_path / "names.skops")
    _, by_name = agrees(tmp_path / "names.skops", unseen(rows), *trusted)
    assert np.array_equal(by_name["probabilities"], by_number["probabilities"])


def test_model_fitted_on_float32_is_asked_in_float32(tmp_path: Path) -> None:
    rows = table("iris")[0]
    model = cluster.KMeans(3, n_init=1, random_state=0)
    path, trusted = saved(model, tmp_path / "m.skops", rows.astype(np.float32))
    agrees(path, unseen(rows), *trusted)


@pytest.mark.parametrize("rows", [1, 3, 4])
def test_any_number_of_rows_is_laid_out_right(rows: int, tmp_path: Path) -> None:
    data, targets = table("iris")
    for estimator in (logistic, discriminant_analysis.QuadraticDiscriminantAnalysis()):
        path, trusted = saved(estimator, tmp_path / "m.skops", data, targets)
        new = unseen(data)[:: len(data) // rows][:rows]
        model = imported(path, new.shape, *trusted)
        assert model.original is not None
        answer = model.original({"X": new})
        assert [answer[spec.name].shape for spec in model.outputs] == [
            spec.shape for spec in model.outputs
        ]
        assert np.array_equal(answer["label"].ravel(), estimator.predict(new.astype(np.float64)))


def test_several_targets_make_several_columns(tmp_path: Path) -> None:
    rows, targets = table("diabetes")
    both = np.stack([targets, -targets], axis=1)
    for estimator in (linear_model.Ridge(), ensemble.RandomForestRegressor(5)):
        path, trusted = saved(estimator, tmp_path / "m.skops", rows, both)
        model, _ = agrees(path, unseen(rows), *trusted)
        assert model.outputs[0].shape == (len(rows), 2)

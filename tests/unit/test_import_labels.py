"""ONNX models of classifiers: text and dictionaries become numbers."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import skl2onnx
from onnx import TensorProto, helper, numpy_helper
from sklearn import (
    calibration,
    ensemble,
    linear_model,
    naive_bayes,
    neighbors,
    pipeline,
    preprocessing,
    svm,
    tree,
)

from edgepack.errors import ModelError
from edgepack.importers import import_model
from edgepack.importers.labels import tensors_only
from tests.tabular import run, table, title, unseen

ML = "ai.onnx.ml"
NAMES = np.array(["cat", "dog", "emu"])

logistic = linear_model.LogisticRegression(max_iter=500)


def exported(estimator: Any, labels: np.ndarray, rows: np.ndarray) -> onnx.ModelProto:
    """As skl2onnx exports it when nobody tells it otherwise: ZipMap, and labels as they are."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of deprecations
        estimator.fit(rows, labels)
        model: onnx.ModelProto = skl2onnx.to_onnx(
            estimator, rows[:1].astype(np.float32), target_opset={"": 17, ML: 3}
        )
    return model


def model_of(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    constants: dict[str, np.ndarray] | None = None,
    ml: int = 3,
) -> onnx.ModelProto:
    held = [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()]
    graph = helper.make_graph(nodes, "graph", inputs, outputs, held)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(ML, ml)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


value = helper.make_tensor_value_info


@pytest.mark.parametrize("text", [True, False], ids=["text", "numbers"])
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize(
    "estimator",
    [
        logistic,
        svm.SVC(),
        svm.LinearSVC(),
        naive_bayes.GaussianNB(),
        tree.DecisionTreeClassifier(),
        ensemble.GradientBoostingClassifier(n_estimators=3),
        neighbors.KNeighborsClassifier(),
        pipeline.make_pipeline(preprocessing.StandardScaler(), logistic),
    ],
    ids=title,
)
def test_exported_classifier_gives_the_same_as_numbers(
    estimator: Any, classes: int, text: bool, tmp_path: Path
) -> None:
    rows, targets = table("iris")
    rows, targets = rows[targets < classes], targets[targets < classes]
    model = exported(estimator, NAMES[targets] if text else targets + 4, rows)
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    new = unseen(rows)
    before = run(model, new)
    imported = import_model(path, {"X": new.shape})
    label, *others = (spec.name for spec in imported.outputs)
    for after in (run(imported.model, new), run(imported.reference or model, new)):
        known = NAMES[after[label]] if text else after[label]
        assert np.array_equal(known, before[label])
        assert len(np.unique(known)) == classes
        for name in others:
            assert np.array_equal(after[name], as_matrix(before[name]))
    listed = [f"{i} = {name!r}" for i, name in enumerate(NAMES[:classes].tolist())]
    note = f"output {label!r} is the number of the class: {', '.join(listed)}"
    assert (note in imported.notes) == text
    columns = NAMES[:classes] if text else np.arange(classes) + 4
    for note in imported.notes[int(text) :]:
        assert note.endswith(
            f"has a column for each class, in this order: {', '.join(map(str, columns))}"
        )


def as_matrix(answer: Any) -> np.ndarray:
    """A list of dictionaries as a matrix; their order is that of the classes."""
    if isinstance(answer, list):
        return np.array([list(row.values()) for row in answer], np.float32)
    return np.asarray(answer)


@pytest.mark.parametrize(
    "estimator",
    [
        calibration.CalibratedClassifierCV(svm.LinearSVC(), cv=2),
        ensemble.StackingClassifier([("a", logistic), ("b", naive_bayes.GaussianNB())], cv=2),
        ensemble.BaggingClassifier(logistic, 3, random_state=0),
    ],
    ids=title,
)
def test_no_text_is_left_in_classifiers_that_others_ask_for_scores(
    estimator: Any, tmp_path: Path
) -> None:
    rows, targets = table("iris")
    onnx.save(exported(estimator, NAMES[targets], rows), tmp_path / "model.onnx")
    model = import_model(tmp_path / "model.onnx", {"X": (2, 4)}).model
    assert not [a.name for node in model.graph.node for a in node.attribute if a.strings]
    assert all(tensor.data_type != TensorProto.STRING for tensor in model.graph.initializer)


def test_a_model_of_tensors_is_left_alone() -> None:
    rows, targets = table("iris")
    model = skl2onnx.to_onnx(
        logistic.fit(rows, targets), rows[:1].astype(np.float32), options={"zipmap": False}
    )
    before = model.SerializeToString(deterministic=True)
    assert tensors_only(model) == ()
    assert model.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("default", ["other", "b", ""])
def test_encoder_at_the_end_gives_the_number_of_its_text(default: str) -> None:
    unknown = {"default_string": default} if default else {}
    node = helper.make_node(
        "LabelEncoder",
        ["i"],
        ["y"],
        domain=ML,
        keys_int64s=[3, 5, 7, 9],
        values_strings=["b", "a", "b", "c"],
        **unknown,
    )
    i, y = value("i", TensorProto.INT64, [5]), value("y", TensorProto.STRING, [5])
    model = model_of([node], [i], [y])
    assert tensors_only(model) == (
        "output 'y' is the number of the class: 0 = 'b', 1 = 'a', 2 = 'c'",
    )
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (numbers,) = session.run(None, {"i": np.array([3, 5, 7, 9, 1])})
    assert numbers.tolist() == [0, 1, 0, 2, 0 if default == "b" else -1]


@pytest.mark.parametrize("held", ["initializer", "Constant"])
@pytest.mark.parametrize("operator", ["Gather", "ArrayFeatureExtractor"])
def test_table_of_text_becomes_a_table_of_numbers(operator: str, held: str) -> None:
    texts = np.array(["x", "y", "z"], object)
    domain = ML if operator == "ArrayFeatureExtractor" else ""
    nodes = [
        helper.make_node(operator, ["table", "i"], ["picked"], domain=domain),
        helper.make_node("Cast", ["picked"], ["text"], to=TensorProto.STRING),
        helper.make_node("Reshape", ["text", "shape"], ["label"]),
    ]
    constants = {"table": texts, "shape": np.array([-1, 1])}
    if held == "Constant":
        tensor = numpy_helper.from_array(constants.pop("table"), "table")
        nodes.insert(0, helper.make_node("Constant", [], ["table"], value=tensor))
    i, label = value("i", TensorProto.INT64, [4]), value("label", TensorProto.STRING, [4, 1])
    model = model_of(nodes, [i], [label], constants)
    (note,) = tensors_only(model)
    assert note == "output 'label' is the number of the class: 0 = 'x', 1 = 'y', 2 = 'z'"
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (numbers,) = session.run(None, {"i": np.array([2, 0, 1, 2])})
    assert numbers.dtype == np.int64
    assert numbers.tolist() == [[2], [0], [1], [2]]


def test_long_lists_of_labels_are_cut() -> None:
    node = helper.make_node("Gather", ["table", "i"], ["y"])
    texts = np.array([f"class {i}" for i in range(1000)], object)
    i, y = value("i", TensorProto.INT64, [1]), value("y", TensorProto.STRING, [1])
    (note,) = tensors_only(model_of([node], [i], [y], {"table": texts}))
    assert note.endswith("49 = 'class 49', ... (1000 in all)")


def test_text_that_something_else_reads_stays_text() -> None:
    classifier = helper.make_node(
        "LinearClassifier",
        ["x"],
        ["label", "scores"],
        domain=ML,
        coefficients=[1.0] * 6,
        intercepts=[0.0] * 3,
        classlabels_strings=["a", "b", "c"],
    )
    reader = helper.make_node(
        "LabelEncoder", ["label"], ["number"], domain=ML, keys_strings=["a"], values_int64s=[1]
    )
    outputs = [value("label", TensorProto.STRING, [4]), value("number", TensorProto.INT64, [4])]
    model = model_of([classifier, reader], [value("x", TensorProto.FLOAT, [4, 2])], outputs)
    before = model.SerializeToString(deterministic=True)
    assert tensors_only(model) == ()
    assert model.SerializeToString(deterministic=True) == before


def test_text_of_another_kind_is_refused_by_type(tmp_path: Path) -> None:
    node = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.STRING)
    shapes = value("x", TensorProto.FLOAT, [2]), value("y", TensorProto.STRING, [2])
    model = model_of([node], [shapes[0]], [shapes[1]])
    assert tensors_only(model) == ()
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="'y' is of type string"):
        import_model(tmp_path / "m.onnx", {})

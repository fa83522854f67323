from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

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
from tests.kernels import EXTREMES, compile_network, run

Kind = type[np.generic]


def same_shape(operator: str, x: np.ndarray, result: Any, **attributes: Any) -> onnx.ModelProto:
    """A node whose output z has the shape of its input."""
    value: list[Value] = [("x", x.dtype, x.shape)]
    outputs: list[Value] = [("z", result, x.shape)]
    return one_node(operator, value, outputs, **attributes)


LINEAR: list[tuple[Kind, int, int, str]] = [
    (np.float32, 1, 1, "NONE"),
    (np.float64, 7, 1, "LOGISTIC"),
    (np.int64, 7, 1, "SOFTMAX"),
    (np.float32, 7, 3, "SOFTMAX"),
    (np.int32, 60, 5, "LOGISTIC"),
    (np.float32, 7, 3, "SOFTMAX_ZERO"),
    (np.float32, 2, 2, "PROBIT"),
]


@pytest.mark.parametrize(("dtype", "rows", "columns", "transform"), LINEAR)
def test_linear_classifiers_answer_as_in_onnx_runtime(
    dtype: Kind, rows: int, columns: int, transform: str
) -> None:
    generator = np.random.default_rng([rows, columns])
    labels = generator.permutation(40)[: max(columns, 2)].tolist()
    network = classifier(
        "LinearClassifier",
        dtype,
        (rows, 13),
        max(columns, 2),
        coefficients=floats(generator.standard_normal(13 * columns) / 5),
        intercepts=floats(generator.random(columns)),
        classlabels_ints=labels,
        post_transform=transform,
    )
    x = features(generator, (rows, 13), dtype)
    if transform == "SOFTMAX" and dtype is np.float32:
        x[0, 0] = np.nan
    agree(network, x, target=EXTREMES[rows % len(EXTREMES)])


@pytest.mark.parametrize("transform", ["NONE", "LOGISTIC", "SOFTMAX"])
@pytest.mark.parametrize("columns", [1, 4])
def test_linear_regressors_answer_as_in_onnx_runtime(columns: int, transform: str) -> None:
    generator = np.random.default_rng(columns)
    intercepts = {} if transform == "NONE" else {"intercepts": floats(range(columns))}
    network = regressor(
        "LinearRegressor",
        np.float32,
        (6, 9),
        columns,
        coefficients=floats(generator.standard_normal(9 * columns)),
        targets=columns,
        post_transform=transform,
        **intercepts,
    )
    agree(network, features(generator, (6, 9), np.float32))


def machine(generator: np.random.Generator, classes: int, width: int, chances: bool) -> Attributes:
    """Attributes of an SVMClassifier with one to nine support vectors in each class."""
    counts = generator.integers(1, 10, classes).tolist()
    vectors, pairs = sum(counts), classes * (classes - 1) // 2
    attributes: Attributes = {
        "classlabels_ints": generator.permutation(40)[:classes].tolist(),
        "vectors_per_class": counts,
        "support_vectors": floats(generator.standard_normal((vectors, width))),
        "coefficients": floats(generator.standard_normal((classes - 1, vectors))),
        "rho": floats(generator.standard_normal(pairs)),
    }
    if chances:
        attributes["prob_a"] = floats(-2 * generator.random(pairs))
        attributes["prob_b"] = floats(generator.standard_normal(pairs) / 5)
    return attributes


MACHINES = [
    (np.float32, 7, 2, False, "LINEAR", 0.0, "NONE"),
    (np.float64, 7, 2, False, "RBF", 0.0, "LOGISTIC"),
    (np.float32, 1, 2, True, "RBF", 0.0, "NONE"),
    (np.int64, 40, 3, True, "POLY", 3.0, "NONE"),
    (np.float32, 7, 5, True, "SIGMOID", 0.0, "SOFTMAX"),
    (np.int32, 7, 4, False, "POLY", 2.0, "NONE"),
    (np.float32, 7, 3, False, "RBF", 0.0, "LOGISTIC"),
    (np.float32, 2, 2, False, "RBF", 0.0, "SOFTMAX"),
]


@pytest.mark.parametrize("case", MACHINES)
def test_support_vector_classifiers_answer_as_in_onnx_runtime(case: Any) -> None:
    dtype, rows, classes, chances, kind, degree, transform = case
    generator = np.random.default_rng([rows, classes])
    columns = classes if chances or classes == 2 else classes * (classes - 1) // 2
    network = classifier(
        "SVMClassifier",
        dtype,
        (rows, 11),
        columns,
        kernel_type=kind,
        kernel_params=floats([0.05, 0.3, degree]),
        post_transform=transform,
        **machine(generator, classes, 11, chances),
    )
    target = EXTREMES[MACHINES.index(case) % len(EXTREMES)]
    agree(network, features(generator, (rows, 11), dtype), target=target, tolerance=5e-5)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("positive", [True, False])
def test_classifiers_without_support_vectors_answer_as_in_onnx_runtime(
    classes: int, positive: bool
) -> None:
    generator = np.random.default_rng(classes)
    weights = generator.standard_normal((classes, 6))
    network = classifier(
        "SVMClassifier",
        np.float32,
        (9, 6),
        classes,
        classlabels_ints=[8, 5, 6][:classes],
        coefficients=floats(np.abs(weights) if positive else weights),
        kernel_params=[0.0, 0.0, 0.0],
        rho=[0.25],
    )
    agree(network, features(generator, (9, 6), np.float32))


@pytest.mark.parametrize(
    ("kind", "degree"), [("RBF", 0), ("POLY", 3), ("POLY", 0.5), ("LINEAR", 0)]
)
def test_support_vector_regressors_answer_as_in_onnx_runtime(kind: str, degree: float) -> None:
    generator = np.random.default_rng(len(kind))
    supports = 0 if kind == "LINEAR" else 12
    attributes: Attributes = {
        "kernel_type": kind,
        "kernel_params": floats([0.2, 0.1, degree]),
        "n_supports": supports,
        "coefficients": floats(generator.standard_normal(supports or 5)),
        "support_vectors": floats(np.abs(generator.standard_normal((supports or 1, 5)))),
    }
    x = np.abs(features(generator, (9, 5), np.float32))
    (values,), _ = agree(
        regressor("SVMRegressor", np.float32, (9, 5), 1, **attributes, rho=[-0.5]), x
    )
    middle = float(np.median(values)) + 1e-3
    attributes |= {"rho": floats([-0.5 - middle]), "one_class": 1}
    (sides,), _ = agree(regressor("SVMRegressor", np.float32, (9, 5), 1, **attributes), x)
    assert np.array_equal(sides, np.where(values > middle, 1, -1))
    assert len(np.unique(sides)) == 2


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.int32])
@pytest.mark.parametrize("shape", [(6,), (9, 6)])
def test_features_are_scaled_and_normalized_as_in_onnx_runtime(
    dtype: Kind, shape: tuple[int, ...]
) -> None:
    generator = np.random.default_rng(len(shape))
    x = features(generator, shape, dtype, nan=True)
    offset, scale = (floats(generator.standard_normal(6)) for _ in range(2))
    agree(same_shape("Scaler", x, np.float32, offset=offset, scale=scale), x)
    agree(same_shape("Scaler", x, np.float32, offset=offset[:1], scale=scale[:1]), x)
    zeros = x.copy()
    zeros.reshape(-1, 6)[0] = 0
    for norm in ("MAX", "L1", "L2"):
        agree(same_shape("Normalizer", x, np.float32, norm=norm), zeros)


@pytest.mark.parametrize("replaced", [float("nan"), 1.0])
@pytest.mark.parametrize("values", [1, 6])
def test_missing_floats_are_imputed_as_in_onnx_runtime(replaced: float, values: int) -> None:
    x = features(np.random.default_rng(0), (9, 6), np.float32, nan=True)
    network = same_shape(
        "Imputer",
        x,
        np.float32,
        imputed_value_floats=floats(range(10, 10 + values)),
        replaced_value_float=replaced,
    )
    (answer,), _ = agree(network, x)
    assert not np.array_equal(answer, x, equal_nan=True)


@pytest.mark.parametrize("dtype", [np.int64, np.int32])
def test_integers_are_imputed(dtype: Kind) -> None:
    x = features(np.random.default_rng(0), (9, 3), dtype)
    network = same_shape(
        "Imputer", x, dtype, imputed_value_int64s=[7, 8, 9], replaced_value_int64=-1
    )
    compiled = compile_network(network, load_target(EXTREMES[0]))
    (answer,) = run(compiled, [x])
    assert np.array_equal(answer, np.where(x == -1, [7, 8, 9], x))
    assert answer.dtype == dtype


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.int32])
def test_only_what_is_above_the_threshold_becomes_one(dtype: Kind) -> None:
    x = features(np.random.default_rng(0), (9, 3), dtype, nan=True)
    compiled = compile_network(
        same_shape("Binarizer", x, dtype, threshold=1.0), load_target(EXTREMES[-1])
    )
    (answer,) = run(compiled, [x])
    assert np.array_equal(answer, (x > 1).astype(dtype))
    assert 0 < answer.sum() < answer.size


def tensor(values: Any, dtype: Any) -> Any:
    return numpy_helper.from_array(np.asarray(values, dtype))


@pytest.mark.parametrize("count", [1, 2, 7, 100])
@pytest.mark.parametrize("kind", ["int64", "float32"])
def test_labels_are_encoded_as_in_onnx_runtime(kind: str, count: int) -> None:
    generator = np.random.default_rng(count)
    keys = (generator.permutation(300)[:count] - 150).astype(kind)
    x = generator.choice(np.concatenate([keys, keys + 1]), (5, 30)).astype(kind)
    results = generator.integers(-1000, 1000, count)
    as_keys: Attributes = {"keys_int64s": keys.tolist()}
    if kind == "float32":
        keys[0] = np.nan
        x[generator.random(x.shape) < 0.2] = np.nan
        as_keys = {"keys_floats": floats(keys)}
    agree(same_shape("LabelEncoder", x, np.int64, **as_keys, values_int64s=results.tolist()), x)
    to_float = {"values_floats": floats(results / 8), "default_float": 0.5}
    agree(same_shape("LabelEncoder", x, np.float32, **as_keys, **to_float), x)
    if kind == "float32":
        before = same_shape(
            "LabelEncoder", x, np.int64, opset=2, **as_keys, values_int64s=results.tolist()
        )
        agree(before, x)


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.int64, np.float32, np.float64])
def test_labels_in_tensors_keep_their_types(dtype: Kind) -> None:
    network = same_shape(
        "LabelEncoder",
        np.zeros((2, 3), dtype),
        dtype,
        keys_tensor=tensor([5, -2, 9], dtype),
        values_tensor=tensor([1, 2, 3], dtype),
        default_tensor=tensor([7], dtype),
    )
    compiled = compile_network(network, load_target(EXTREMES[0]))
    (answer,) = run(compiled, [np.array([[9, 5, -2], [0, -3, 10]], dtype)])
    assert answer.dtype == dtype
    assert answer.tolist() == [[3, 1, 2], [7, 7, 7]]


@pytest.mark.parametrize("dtype", [np.int64, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(7,), (3, 4)])
def test_categories_are_encoded_as_in_onnx_runtime(dtype: Kind, shape: tuple[int, ...]) -> None:
    generator = np.random.default_rng(1)
    fractions = generator.choice([0, 0.5, 0.99], shape)
    x = (generator.integers(-3, 6, shape) + fractions * (dtype is not np.int64)).astype(dtype)
    inputs: list[Value] = [("x", dtype, shape)]
    outputs: list[Value] = [("z", np.float32, (*shape, 4))]
    network = one_node("OneHotEncoder", inputs, outputs, cats_int64s=[4, -1, 0, 2])
    (answer,), _ = agree(network, x)
    assert 0 < answer.sum() < x.size


def test_no_float_is_taken_for_a_category_that_it_cannot_be() -> None:
    inputs: list[Value] = [("x", np.float32, (4,))]
    outputs: list[Value] = [("z", np.float32, (4, 2))]
    network = one_node("OneHotEncoder", inputs, outputs, cats_int64s=[2**24 + 1, -(2**63)])
    x = np.array([2**24, np.nan, np.inf, -(2.0**63)], np.float32)
    (answer,) = run(compile_network(network, load_target(EXTREMES[0])), [x])
    assert answer.tolist() == [[0, 0], [0, 0], [0, 0], [0, 1]]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.int32])
@pytest.mark.parametrize("held", [True, False])
def test_columns_are_extracted_as_in_onnx_runtime(dtype: Kind, held: bool) -> None:
    places = np.array([[3, 0, 3]], np.int64)
    for shape, result in (((5,), (1, 3)), ((4, 5), (4, 3)), ((2, 3, 5), (2, 3, 3))):
        x = features(np.random.default_rng(2), shape, dtype)
        inputs: list[Value] = [("x", dtype, shape)]
        outputs: list[Value] = [("z", dtype, result)]
        if held:
            network = one_node("ArrayFeatureExtractor", inputs, outputs, {"i": places})
            agree(network, x)
        else:
            inputs.append(("i", np.int64, (1, 3)))
            agree(one_node("ArrayFeatureExtractor", inputs, outputs), x, places)


def test_columns_that_a_request_asks_for_stay_inside_the_input() -> None:
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    inputs: list[Value] = [("x", np.float32, (3, 4)), ("i", np.int64, (1, 3))]
    outputs: list[Value] = [("z", np.float32, (3, 3))]
    network = one_node("ArrayFeatureExtractor", inputs, outputs)
    compiled = compile_network(network, load_target(EXTREMES[0]))
    (answer,) = run(compiled, [x, np.array([[-(2**62), 1, 2**62]])])
    assert answer.tolist() == x[:, [0, 1, 3]].tolist()


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.int32])
def test_columns_are_joined_as_in_onnx_runtime(dtype: Kind) -> None:
    generator = np.random.default_rng(3)
    inputs: list[Value] = [("a", dtype, (4, 3)), ("b", dtype, (4, 2)), ("c", dtype, (4, 5))]
    outputs: list[Value] = [("z", np.float32, (4, 9))]
    network = one_node("FeatureVectorizer", inputs, outputs, inputdimensions=[3, 4, 2])
    agree(network, *(features(generator, shape, dtype) for _, _, shape in inputs))


def refusal(operator: str, shape: tuple[int, ...], outputs: int, **attributes: Any) -> str:
    """Why a node with float32 input is refused."""
    results: list[Value] = [("y", np.int64, shape[:1]), ("z", np.float32, shape)][-outputs:]
    inputs: list[Value] = [("x", np.float32, shape)]
    held = {"i": np.array([5], np.int64)} if operator == "ArrayFeatureExtractor" else None
    with pytest.raises(ModelError, match=rf"ai.onnx.ml.{operator} 'it'") as refused:
        frontend.to_relax(one_node(operator, inputs, results, held, **attributes))
    return str(refused.value)


SUPPORTED = machine(np.random.default_rng(0), 3, 2, chances=True)
REFUSED: dict[str, Callable[[], str]] = {
    "3 coefficients": lambda: refusal(
        "LinearClassifier",
        (2, 2),
        2,
        coefficients=[1.0, 2.0, 3.0],
        intercepts=[0.0, 0.0],
        classlabels_ints=[0, 1],
    ),
    "1 class labels for 2 scores": lambda: refusal(
        "LinearClassifier",
        (2, 2),
        2,
        coefficients=[1.0] * 4,
        intercepts=[0.0, 0.0],
        classlabels_ints=[0],
    ),
    "class labels are strings": lambda: refusal(
        "LinearClassifier",
        (2, 2),
        2,
        coefficients=[1.0] * 2,
        intercepts=[0.0],
        classlabels_strings=["a", "b"],
    ),
    "attribute support_vectors": lambda: refusal("SVMClassifier", (2, 3), 2, **SUPPORTED),
    "attribute rho": lambda: refusal("SVMClassifier", (2, 2), 2, **SUPPORTED | {"rho": [1.0]}),
    "attribute prob_b": lambda: refusal(
        "SVMClassifier", (2, 2), 2, **SUPPORTED | {"prob_b": [1.0]}
    ),
    "attribute vectors_per_class": lambda: refusal(
        "SVMClassifier", (2, 2), 2, **SUPPORTED | {"vectors_per_class": [4, 4]}
    ),
    "kernel_type is 'COSINE'": lambda: refusal(
        "SVMClassifier", (2, 2), 2, **SUPPORTED, kernel_type="COSINE"
    ),
    "attribute coefficients": lambda: refusal(
        "SVMRegressor", (2, 1), 1, n_supports=2, coefficients=[1.0], support_vectors=[1.0, 2.0]
    ),
    "3 values for an input": lambda: refusal("Scaler", (2, 2), 1, offset=[1.0] * 3),
    "norm is 'L3'": lambda: refusal("Normalizer", (2, 2), 1, norm="L3"),
    "no imputed_value_floats": lambda: refusal("Imputer", (2, 2), 1, imputed_value_int64s=[1]),
    "2 keys and 1 values": lambda: refusal(
        "LabelEncoder", (2, 2), 1, keys_floats=[1.0, 2.0], values_floats=[1.0]
    ),
    "occurs twice": lambda: refusal(
        "LabelEncoder", (2, 2), 1, keys_floats=[1.0, 1.0], values_floats=[1.0, 2.0]
    ),
    "keys are strings": lambda: refusal(
        "LabelEncoder", (2, 2), 1, keys_strings=["a"], values_floats=[1.0]
    ),
    "keys are int64": lambda: refusal(
        "LabelEncoder", (2, 2), 1, keys_int64s=[1], values_floats=[1.0]
    ),
    "categories are strings": lambda: refusal("OneHotEncoder", (2, 2), 1, cats_strings=["a"]),
    "listed twice": lambda: refusal("OneHotEncoder", (2, 2), 1, cats_int64s=[1, 1]),
    "an axis of 2 does not have": lambda: refusal("ArrayFeatureExtractor", (2, 2), 1),
    "2 inputdimensions": lambda: refusal("FeatureVectorizer", (2, 2), 1, inputdimensions=[1, 1]),
    "not [rows, features]": lambda: refusal("LinearRegressor", (2, 2, 2), 1, coefficients=[1.0]),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_forms_that_cannot_be_compiled_are_refused_by_the_name_of_their_node(reason: str) -> None:
    assert reason in REFUSED[reason]()


def test_models_of_scikit_learn_agree_with_onnx_runtime() -> None:
    from sklearn import linear_model, pipeline, preprocessing, svm

    chosen = [
        (svm.SVC(probability=True, random_state=0), "iris"),
        (svm.SVC(kernel="poly"), "wine"),
        (svm.NuSVR(kernel="sigmoid", gamma=0.01), "diabetes"),
        (linear_model.LogisticRegression(max_iter=20), "wine"),
        (linear_model.LogisticRegression(max_iter=20), "breast_cancer"),
        (preprocessing.KBinsDiscretizer(4, encode="onehot-dense"), "iris"),
        (
            pipeline.make_pipeline(
                preprocessing.StandardScaler(),
                preprocessing.Normalizer(),
                svm.OneClassSVM(gamma=0.5),
            ),
            "iris",
        ),
    ]
    for estimator, name in chosen:
        network, rows = exported(estimator, name, rows=9)
        answers, _ = agree(network, rows, tolerance=5e-5)
        assert all(len(np.unique(answer)) > 1 for answer in answers), type(estimator).__name__

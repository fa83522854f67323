"""Shapes of ai.onnx.ml operators: those that ONNX leaves open are those that ONNX Runtime gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from edgepack.importers.classical_shapes import infer

ML = "ai.onnx.ml"

value = helper.make_tensor_value_info


def model_of(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    version: int,
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "graph", inputs, outputs)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(ML, version)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


TREE: dict[str, Any] = {
    "nodes_treeids": [0],
    "nodes_nodeids": [0],
    "nodes_featureids": [0],
    "nodes_values": [0.0],
    "nodes_modes": ["LEAF"],
    "nodes_truenodeids": [0],
    "nodes_falsenodeids": [0],
}
LEAF = {"treeids": [0], "nodeids": [0], "ids": [0], "weights": [1.0]}
CLASSES = {f"class_{name}": numbers for name, numbers in LEAF.items()}
TARGETS = {f"target_{name}": numbers for name, numbers in LEAF.items()}
VECTORS: dict[str, Any] = {"kernel_type": "RBF", "kernel_params": [0.5, 0.0, 3.0]}


def machine(classes: int, probabilities: bool = False) -> dict[str, Any]:
    """A vector for each class of four features."""
    pairs = classes * (classes - 1) // 2
    made = {
        "classlabels_ints": list(range(classes)),
        "coefficients": [1.0] * (classes * (classes - 1)),
        "vectors_per_class": [1] * classes,
        "rho": [0.0] * pairs,
        "support_vectors": [1.0] * (4 * classes),
        **VECTORS,
    }
    return {**made, "prob_a": [1.0] * pairs, "prob_b": [0.0] * pairs} if probabilities else made


OPERATORS: list[tuple[str, int, int, dict[str, Any]]] = [
    ("TreeEnsembleClassifier", 1, 2, {**TREE, **CLASSES, "classlabels_int64s": [0, 1, 2]}),
    ("TreeEnsembleClassifier", 1, 2, {**TREE, **CLASSES, "classlabels_strings": ["a", "b"]}),
    ("TreeEnsembleClassifier", 3, 2, {**TREE, **CLASSES, "classlabels_int64s": [0, 1]}),
    ("TreeEnsembleRegressor", 1, 1, {**TREE, **TARGETS, "n_targets": 2}),
    ("TreeEnsembleRegressor", 3, 1, {**TREE, **TARGETS, "n_targets": 2}),
    (
        "LinearClassifier",
        1,
        2,
        {"coefficients": [1.0] * 4, "intercepts": [0.0], "classlabels_ints": [0, 1]},
    ),
    ("LinearRegressor", 1, 1, {"coefficients": [1.0] * 12, "targets": 3}),
    ("LinearRegressor", 1, 1, {"coefficients": [1.0] * 4}),
    ("SVMClassifier", 1, 2, machine(2)),
    ("SVMClassifier", 1, 2, machine(4)),
    ("SVMClassifier", 1, 2, machine(4, probabilities=True)),
    (
        "SVMRegressor",
        1,
        1,
        {"coefficients": [1.0], "rho": [0.0], "support_vectors": [1.0] * 4, **VECTORS}
        | {"n_supports": 1},
    ),
    ("Scaler", 1, 1, {"offset": [0.0], "scale": [1.0]}),
    ("Normalizer", 1, 1, {"norm": "L2"}),
    ("Imputer", 1, 1, {"imputed_value_floats": [1.0], "replaced_value_float": 0.0}),
    ("FeatureVectorizer", 1, 1, {"inputdimensions": [4]}),
    ("Binarizer", 1, 1, {"threshold": 0.0}),
]


SHAPES = [(5, 4), (1, 4), (4,)]
CASES = [
    pytest.param(*operator, shape, id=f"{operator[0]}-{operator[1]}-{shape}")
    for operator in OPERATORS
    for shape in SHAPES
    if operator[1] == 1 or len(shape) == 2  # version 3 wants two dimensions
]


@pytest.mark.parametrize(("operator", "version", "outputs", "attributes", "shape"), CASES)
def test_shapes_are_those_that_onnx_runtime_gives(
    operator: str, version: int, outputs: int, attributes: dict[str, Any], shape: tuple[int, ...]
) -> None:
    names = [f"y{i}" for i in range(outputs)]
    # Twice: what follows has shapes as well.
    nodes = [
        helper.make_node("Scaler", ["x"], ["scaled"], domain=ML, offset=[0.0], scale=[1.0]),
        helper.make_node(operator, ["scaled"], names, "it", domain=ML, **attributes),
        helper.make_node("Identity", [names[-1]], ["z"]),
    ]
    values = [onnx.ValueInfoProto(name=name) for name in (*names, "z")]
    model = model_of(nodes, [value("x", TensorProto.FLOAT, shape)], values, version)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    answers = session.run(None, {"x": np.ones(shape, np.float32)})
    for strict in (False, True):
        for found, answer in zip(infer(model, strict=strict).graph.output, answers, strict=True):
            tensor = found.type.tensor_type
            assert [dim.dim_value for dim in tensor.shape.dim] == list(np.shape(answer))
            assert helper.tensor_dtype_to_np_dtype(tensor.elem_type) == np.asarray(answer).dtype


@pytest.mark.parametrize(
    ("data", "places"),
    [((5, 4), (2,)), ((5, 4), (1, 2)), ((4,), (1, 3)), ((4,), (2,)), ((2, 3, 4), (1, 2))],
    ids=str,
)
def test_picked_columns_have_the_shape_that_onnx_runtime_gives(
    data: tuple[int, ...], places: tuple[int, ...]
) -> None:
    node = helper.make_node("ArrayFeatureExtractor", ["x", "i"], ["y"], domain=ML)
    inputs = [value("x", TensorProto.FLOAT, data), value("i", TensorProto.INT64, places)]
    model = model_of([node], inputs, [onnx.ValueInfoProto(name="y")], 3)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    feed = {"x": np.ones(data, np.float32), "i": np.ones(places, np.int64)}
    (found,) = infer(model, strict=True).graph.output
    shape = [dim.dim_value for dim in found.type.tensor_type.shape.dim]
    assert shape == list(session.run(None, feed)[0].shape)

"""Dynamic dimensions: fixed by what is given, and every mistake names the inputs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgepack.errors import ModelError
from edgepack.importers import import_model

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
Shapes = dict[str, tuple[int, ...]]


def saved(
    folder: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: dict[str, Any],
    outputs: dict[str, Any],
    constants: dict[str, Any] | None = None,
    ir_version: int = 8,
) -> Path:
    """Save a graph; inputs and outputs are shapes by name, or (type, shape)."""

    def info(values: dict[str, Any]) -> list[onnx.ValueInfoProto]:
        typed = {k: v if isinstance(v, tuple) else (FLOAT, v) for k, v in values.items()}
        return [helper.make_tensor_value_info(k, *v) for k, v in typed.items()]

    tensors = [numpy_helper.from_array(np.asarray(v), k) for k, v in (constants or {}).items()]
    graph = helper.make_graph(nodes, "graph", info(inputs), info(outputs), tensors)
    opsets = [helper.make_opsetid("", 17)]
    path = folder / "model.onnx"
    model = helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture
def two_inputs(tmp_path: Path) -> Path:
    """z = x + y, with dimensions named, unnamed, negative and fixed."""
    nodes = [helper.make_node("Add", ["x", "y"], ["z"])]
    path = saved(
        tmp_path, nodes, {"x": ["batch", 3, "?", None], "y": [1, 3, 1, 1]}, {"z": [None] * 4}
    )
    return path


def refused(path: Path, shapes: Shapes) -> ModelError:
    with pytest.raises(ModelError) as caught:
        import_model(path, shapes)
    return caught.value


def test_given_shape_fixes_the_input_and_what_follows(two_inputs: Path) -> None:
    imported = import_model(two_inputs, {"x": (2, 3, 8, 16)})
    assert imported.inputs[0].shape == imported.outputs[0].shape == (2, 3, 8, 16)


def test_missing_shape_names_every_dimension_and_shows_the_option(two_inputs: Path) -> None:
    error = refused(two_inputs, {})
    assert "input 'x': batch (axis 0), ? (axis 2), unnamed (axis 3)" in error.message
    assert error.hint == "Add --input x=BATCH,3,DIM2,DIM3"


def test_every_input_with_a_missing_shape_is_named(tmp_path: Path) -> None:
    nodes = [helper.make_node("Add", ["x", "y"], ["z"])]
    path = saved(tmp_path, nodes, {"x": ["n", 4], "y": ["n", 4]}, {"z": ["n", 4]})
    error = refused(path, {})
    assert "input 'x'" in error.message
    assert "input 'y'" in error.message
    assert error.hint == "Add --input x=N,4 --input y=N,4"


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ({"x": (1, 3, 8)}, "[1, 3, 8]: it has 4 dimensions"),
        ({"x": (1, 4, 8, 8)}, "[1, 4, 8, 8]: axis 1 is 3 in the model"),
        ({"x": (1, 3, 0, 8)}, "every dimension must be 1 or more"),
        ({"x": (1, 3, -1, 8)}, "every dimension must be 1 or more"),
        ({"x": (1, 3, 8, 8), "y": (2, 3, 1, 1)}, "'y' cannot have the shape"),
        ({"x": (1, 3, 1 << 20, 1 << 20)}, "it would take 2 GiB or more"),
        ({"x": (1, 3, 8, 8), "X2": (1,)}, "the model has no input 'X2'"),
    ],
)
def test_shape_that_cannot_be_is_refused_with_the_inputs(
    shapes: Shapes, words: str, two_inputs: Path
) -> None:
    error = refused(two_inputs, shapes)
    assert words in error.message
    assert "Inputs: x (float32 [batch, 3, ?, ?]), y (float32 [1, 3, 1, 1])" in error.hint or (
        "x (float32" in error.hint
    )


def test_shapes_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("Add", ["x", "y"], ["z"])]
    path = saved(tmp_path, nodes, {"x": ["n", 4], "y": ["n", 4]}, {"z": ["n", 4]})
    assert "do not fit together" in refused(path, {"x": (2, 4), "y": (3, 4)}).message


def test_input_of_unknown_rank_must_be_given(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    path = saved(tmp_path, nodes, {"x": (FLOAT, None)}, {"y": (FLOAT, None)})
    error = refused(path, {})
    assert "input 'x' (of unknown rank)" in error.message
    assert "--input x=DIM0,DIM1,..." in error.hint
    assert import_model(path, {"x": (2, 5)}).outputs[0].shape == (2, 5)


def test_scalar_input_and_output_are_static(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    imported = import_model(saved(tmp_path, nodes, {"x": []}, {"y": []}), {})
    assert imported.inputs[0].shape == imported.outputs[0].shape == ()


def test_initializers_listed_as_inputs_are_constants(tmp_path: Path) -> None:
    nodes = [helper.make_node("Add", ["x", "w"], ["y"])]
    weight = {"w": np.ones(4, np.float32)}
    path = saved(tmp_path, nodes, {"x": [2, 4], "w": [4]}, {"y": [2, 4]}, weight, ir_version=3)
    imported = import_model(path, {})
    assert [spec.name for spec in imported.inputs] == ["x"]
    assert [value.name for value in imported.model.graph.input] == ["x"]
    assert "no input 'w'" in refused(path, {"w": (4,)}).message


def test_input_that_nothing_reads_stays(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    path = saved(tmp_path, nodes, {"x": [4], "unused": (INT64, [2])}, {"y": [4]})
    imported = import_model(path, {})
    assert [(spec.name, spec.dtype) for spec in imported.inputs] == [
        ("x", "float32"),
        ("unused", "int64"),
    ]
    assert [value.name for value in imported.model.graph.input] == ["x", "unused"]


def test_output_that_is_an_input_or_a_constant_stays(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Identity", ["x"], ["y"]),
        helper.make_node("Identity", ["c"], ["z"]),
    ]
    constant = {"c": np.arange(3, dtype=np.float32)}
    imported = import_model(saved(tmp_path, nodes, {"x": [4]}, {"y": [4], "z": [3]}, constant), {})
    assert [(spec.name, spec.shape) for spec in imported.outputs] == [("y", (4,)), ("z", (3,))]


def test_stale_shapes_in_the_file_do_not_matter(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Neg", ["a"], ["y"])]
    path = saved(tmp_path, nodes, {"x": ["n", 4]}, {"y": [1, 4]})
    model = onnx.load(path)
    model.graph.value_info.append(helper.make_tensor_value_info("a", FLOAT, [1, 4]))
    path.write_bytes(model.SerializeToString())
    assert import_model(path, {"x": (8, 4)}).outputs[0].shape == (8, 4)


def test_shape_arithmetic_folds_away(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"], axis=0),
        helper.make_node("Concat", ["n", "rest"], ["to"], axis=0),
        helper.make_node("Reshape", ["x", "to"], ["y"]),
    ]
    constants = {"zero": np.array([0]), "rest": np.array([-1])}
    path = saved(tmp_path, nodes, {"x": ["n", 2, 6]}, {"y": [None, None]}, constants)
    imported = import_model(path, {"x": (5, 2, 6)})
    assert imported.outputs[0].shape == (5, 12)
    assert [node.op_type for node in imported.model.graph.node] == ["Reshape"]


def test_first_node_with_a_shape_out_of_data_is_named(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], name="fine"),
        helper.make_node("NonZero", ["a"], ["i"], name="find"),
        helper.make_node("Transpose", ["i"], ["y"], name="after"),
    ]
    path = saved(tmp_path, nodes, {"x": [3, 4]}, {"y": (INT64, ["k", 2])})
    error = refused(path, {})
    assert error.message == "the output shape of NonZero 'find' depends on data"


def test_sequence_in_the_graph_is_named(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("SplitToSequence", ["x"], ["s"], name="split", axis=0),
        helper.make_node("SequenceAt", ["s", "i"], ["y"], name="at"),
    ]
    path = saved(tmp_path, nodes, {"x": [3, 4], "i": (INT64, [])}, {"y": ["a", "b"]})
    assert "SplitToSequence 'split' gives a sequence" in refused(path, {}).message


@pytest.mark.parametrize(
    ("element", "words"),
    [(TensorProto.STRING, "is of type string"), (TensorProto.COMPLEX64, "is of type complex64")],
)
def test_input_of_a_type_that_devices_lack_is_refused(
    element: int, words: str, tmp_path: Path
) -> None:
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    path = saved(tmp_path, nodes, {"x": (element, [3])}, {"y": (element, [3])})
    error = refused(path, {})
    assert words in error.message
    assert "float32" in error.hint


def test_output_of_a_type_that_devices_lack_is_refused(tmp_path: Path) -> None:
    value = numpy_helper.from_array(np.array([1j, 2j, 3j], np.complex64))
    nodes = [
        helper.make_node("Constant", [], ["y"], value=value),
        helper.make_node("Neg", ["x"], ["z"]),
    ]
    path = saved(tmp_path, nodes, {"x": [3]}, {"y": (TensorProto.COMPLEX64, [3]), "z": [3]})
    assert "output 'y' is of type complex64" in refused(path, {}).message


def test_model_without_inputs_is_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("Identity", ["c"], ["y"])]
    path = saved(tmp_path, nodes, {}, {"y": [3]}, {"c": np.ones(3, np.float32)})
    assert "has no inputs" in refused(path, {}).message


def test_functions_of_the_model_are_inlined(tmp_path: Path) -> None:
    path = saved(tmp_path, [helper.make_node("Twice", ["x"], ["y"], domain="own")],
                 {"x": [4]}, {"y": [4]})  # fmt: skip
    model = onnx.load(path)
    body = [helper.make_node("Add", ["a", "a"], ["b"])]
    opsets = [helper.make_opsetid("", 17)]
    model.functions.append(helper.make_function("own", "Twice", ["a"], ["b"], body, opsets))
    model.opset_import.append(helper.make_opsetid("own", 1))
    path.write_bytes(model.SerializeToString())
    assert [node.op_type for node in import_model(path, {}).model.graph.node] == ["Add"]

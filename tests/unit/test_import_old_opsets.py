"""Opsets 1 to 6 are read as opset 7, and mean what they meant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgepack import reference
from edgepack.errors import ModelError
from edgepack.importers import import_model
from tests import kernels

X = np.random.default_rng(0).standard_normal((2, 3, 4, 5)).astype(np.float32)
SLOPES = np.array([0.5, -1, 2], np.float32)


def saved(
    folder: Path,
    nodes: Sequence[onnx.NodeProto],
    constants: Mapping[str, np.ndarray] | None = None,
    *,
    opset: int = 6,
    ir_version: int = 3,
    shape: Sequence[int] = X.shape,
) -> Path:
    """A model from x to y; before IR version 4 its constants are listed as inputs, too."""
    tensors = [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, X.shape)]
    if ir_version < 4:
        inputs += [
            helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            for tensor in tensors
        ]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)
    graph = helper.make_graph(list(nodes), "graph", inputs, [output], tensors)
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def computed(path: Path) -> np.ndarray:
    """What ONNX Runtime makes of the model that is compiled; the reference must say the same."""
    imported = import_model(path, {})
    right = reference.reference(imported, optimise=False)({"x": X})["y"]
    simplified = kernels.expected(imported.model, ["x"], [X])
    np.testing.assert_allclose(simplified[0], right, rtol=1e-6)
    return np.asarray(right)


@pytest.mark.parametrize("ir_version", [3, 4])
@pytest.mark.parametrize(
    ("operator", "axis", "shape"),
    [
        ("Add", 1, (3,)),
        ("Sub", 1, (3, 4)),
        ("Mul", 0, (2,)),
        ("Div", 2, (4, 5)),
        ("Add", None, (4, 5)),
        ("Pow", None, (5,)),
    ],
)
def test_second_operand_goes_along_the_axis_that_the_attribute_names(
    operator: str, axis: int | None, shape: tuple[int, ...], ir_version: int, tmp_path: Path
) -> None:
    operand = np.arange(1, 1 + np.prod(shape)).astype(np.float32).reshape(shape)
    attributes: dict[str, Any] = {"broadcast": 1} | ({} if axis is None else {"axis": axis})
    nodes = [
        helper.make_node("Abs", ["x"], ["a"]),
        helper.make_node(operator, ["a", "b"], ["y"], **attributes),
    ]
    first = 4 - len(shape) if axis is None else axis
    along = operand.reshape((1,) * first + shape + (1,) * (4 - first - len(shape)))
    functions = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply}
    function = {**functions, "Div": np.divide, "Pow": np.power}[operator]
    answer = computed(saved(tmp_path, nodes, {"b": operand}, ir_version=ir_version))
    np.testing.assert_allclose(answer, function(np.abs(X), along), rtol=1e-5)


@pytest.mark.parametrize("ir_version", [3, 4])
def test_prelu_has_a_slope_for_each_channel(ir_version: int, tmp_path: Path) -> None:
    nodes = [helper.make_node("PRelu", ["x", "slopes"], ["y"])]
    path = saved(tmp_path, nodes, {"slopes": SLOPES}, ir_version=ir_version)
    wanted = np.where(X < 0, X * SLOPES[:, None, None], X)
    np.testing.assert_allclose(computed(path), wanted, rtol=1e-6)


def test_dropout_and_batch_normalization_infer(tmp_path: Path) -> None:
    constants = {name: SLOPES**2 + i for i, name in enumerate(("s", "b", "m", "v"))}
    nodes = [
        helper.make_node("Dropout", ["x"], ["d"], is_test=1, ratio=0.9),
        helper.make_node("BatchNormalization", ["d", *"sbmv"], ["y"], is_test=1, epsilon=0.5),
    ]
    scale, bias, mean, variance = (constants[name][:, None, None] for name in "sbmv")
    wanted = (X - mean) / np.sqrt(variance + 0.5) * scale + bias
    np.testing.assert_allclose(computed(saved(tmp_path, nodes, constants)), wanted, rtol=1e-5)


def test_opset_1_is_read(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], consumed_inputs=[0]),
        helper.make_node("Reshape", ["a"], ["b"], shape=[2, 60]),
        helper.make_node("Sum", ["b", "b"], ["y"]),
    ]
    answer = computed(saved(tmp_path, nodes, opset=1, shape=[2, 60]))
    np.testing.assert_array_equal(answer, 2 * np.maximum(X, 0).reshape(2, 60))


def test_what_cannot_be_converted_is_told(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Pad", ["x"], ["y"], paddings=[0, 0, 0, 1, 0, 0, 0, 0]),
    ]
    path = saved(tmp_path, nodes, opset=1, shape=[2, 3, 4, 6])
    with pytest.raises(
        ModelError, match=r"opset 1, and cannot be read as opset 7: .*Pad"
    ) as caught:
        import_model(path, {})
    assert "opset 7 or newer" in caught.value.hint
    assert "\n" not in caught.value.message


def test_weights_in_other_files_are_told(tmp_path: Path) -> None:
    nodes = [helper.make_node("PRelu", ["x", "slopes"], ["y"])]
    path = saved(tmp_path, nodes, {"slopes": SLOPES})
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="weights", size_threshold=0)
    with pytest.raises(ModelError, match="opset 6 and has weights in other files"):
        import_model(path, {})

"""Operands of types that ONNX does not allow together: refused by the operator's and the operand's name."""

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

MIXED = [
    ("Conv", ["x", "weights"], np.ones((4, 3, 3, 3)), "'x' is float32 and 'weights' is float64"),
    ("Add", ["x", "weights"], np.ones(1), "'x' is float32 and 'weights' is float64"),
    ("Add", ["weights", "x"], np.ones(1, np.int64), "'weights' is int64 and 'x' is float32"),
    ("MatMul", ["x", "weights"], np.ones((8, 8)), "'x' is float32 and 'weights' is float64"),
    ("Concat", ["x", "x", "weights"], np.ones((1, 3, 8, 8)), "'weights' is float64"),
    (
        "Where",
        ["x", "x", "weights"],
        np.ones(1, np.float32),
        "takes no float32 for its operand 'x'",
    ),
    (
        "Gather",
        ["x", "weights"],
        np.ones(1, np.float32),
        "takes no float32 for its operand 'weights'",
    ),
]


def saved(folder: Path, operator: str, operands: Sequence[str], constant: Any) -> Path:
    """One node of a (1, 3, 8, 8) float32 input and a constant."""
    attributes: dict[str, Any] = {"axis": 1} if operator == "Concat" else {}
    node = helper.make_node(operator, operands, ["y"], name="the/node", **attributes)
    graph = helper.make_graph(
        [node],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * 4)],
        [numpy_helper.from_array(constant, "weights")],
    )
    opsets = [helper.make_opsetid("", 17)]
    path = folder / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


@pytest.mark.parametrize(("operator", "operands", "constant", "said"), MIXED)
def test_mixed_types_are_refused_by_name(
    tmp_path: Path, operator: str, operands: Sequence[str], constant: Any, said: str
) -> None:
    with pytest.raises(ModelError) as caught:
        import_model(saved(tmp_path, operator, operands, constant), {})
    assert f"{operator} 'the/node'" in caught.value.message
    assert said in caught.value.message
    assert "Cast" in (caught.value.hint or "")


def test_a_width_that_the_schema_does_not_name_is_taken(tmp_path: Path) -> None:
    node = helper.make_node("Celu", ["x"], ["y"])  # ONNX: float32 alone
    graph = helper.make_graph(
        [node],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT16, [3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT16, [3])],
    )
    opsets = [helper.make_opsetid("", 17)]
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    assert import_model(path, {}).outputs[0].dtype == "float16"


@pytest.mark.parametrize(
    ("operator", "operands", "constant"),
    [
        ("Pow", ["x", "weights"], np.full(1, 2, np.int64)),
        ("Gather", ["x", "weights"], np.zeros(1, np.int64)),
        ("Clip", ["x", "", "weights"], np.float32(0.5)),
    ],
)
def test_types_that_may_differ_are_taken(
    tmp_path: Path, operator: str, operands: Sequence[str], constant: Any
) -> None:
    imported = import_model(saved(tmp_path, operator, operands, np.asarray(constant)), {})
    assert imported.outputs[0].dtype == "float32"

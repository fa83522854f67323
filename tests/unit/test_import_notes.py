"""What an import says without refusing the model, and what it refuses all at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgepack import compiler
from edgepack.errors import ModelError
from edgepack.importers import import_model
from tests import networks


def test_weights_that_hold_nan_are_noted_by_name_and_number(tmp_path: Path) -> None:
    weights = np.ones((4, 3), np.float32)
    weights[1, 2] = weights[3, 0] = np.nan
    network = networks.model(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        {"x": [2, 4]},
        {"y": [2, 3]},
        {"w": weights},
    )
    notes = import_model(networks.save(network, tmp_path / "m.onnx"), {}).notes
    assert notes == ("the weights 'w' hold NaN: 2 of 12 values",)


def test_infinite_weights_are_nobodys_mistake(tmp_path: Path) -> None:
    network = networks.model(
        [helper.make_node("Max", ["x", "w"], ["y"])],
        {"x": [3]},
        {"y": [3]},
        {"w": np.array([-np.inf, 0, 1], np.float32)},
    )
    assert import_model(networks.save(network, tmp_path / "m.onnx"), {}).notes == ()


def test_a_missing_operator_is_told_before_what_its_output_would_be(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("NonZero", ["x"], ["where"]),
        helper.make_node("ImageDecoder", ["bytes"], ["image"], name="decoder"),
    ]
    graph = helper.make_graph(
        nodes,
        "decoding",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [3]),
            helper.make_tensor_value_info("bytes", TensorProto.UINT8, [99]),
        ],
        [
            helper.make_tensor_value_info("where", TensorProto.INT64, [1, "n"]),
            helper.make_tensor_value_info("image", TensorProto.UINT8, ["h", "w", 3]),
        ],
    )
    path = tmp_path / "m.onnx"
    opsets = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    with pytest.raises(ModelError, match=r"unsupported operators: ImageDecoder \(1x: decoder\)$"):
        import_model(path, {}, is_supported=compiler.is_supported)


def test_every_missing_operator_is_named_at_once_with_its_nodes(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Fancy", ["x"], ["a"], name="first", domain="acme"),
        helper.make_node("Fancy", ["a"], ["b"], name="second", domain="acme"),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("Plain", ["c"], ["y"], domain="other"),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3]) for name in "xy"]
    opsets = [
        helper.make_opsetid(domain, version)
        for domain, version in (("", 17), ("acme", 1), ("other", 2))
    ]
    graph = helper.make_graph(nodes, "custom", values[:1], values[1:])
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    with pytest.raises(ModelError) as caught:
        import_model(path, {}, is_supported=compiler.is_supported)
    named = "unsupported operators: acme.Fancy (2x: first, second); other.Plain (1x: Plain_3)"
    assert caught.value.message.startswith(named[:60])
    assert "other.Plain (1x: " in caught.value.message

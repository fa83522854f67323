"""Element types that packages do not have: bfloat16, float8, float4, integers of 4 and 2 bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from edgepack import golden
from edgepack.artefacts import ImportedModel
from edgepack.errors import ModelError
from edgepack.importers import import_model, weights
from edgepack.importers.passes.carried_types import CARRIED_TYPES
from edgepack.targets import load_target
from tests import kernels

Shape = Sequence[int]
Values = Mapping[str, tuple[int, Shape]]


def network(
    nodes: Sequence[onnx.NodeProto],
    inputs: Values,
    outputs: Values,
    constants: Mapping[str, np.ndarray] | None = None,
    functions: Sequence[onnx.FunctionProto] = (),
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info(name, *value) for name, value in inputs.items()],
        [helper.make_tensor_value_info(name, *value) for name, value in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()],
    )
    opsets = [helper.make_opsetid("", 25), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=13, functions=functions)


def answers(model: onnx.ModelProto, *inputs: np.ndarray) -> kernels.Arrays:
    return kernels.run(kernels.compile_network(model, load_target("host")), inputs)


def imported_from(model: onnx.ModelProto, tmp_path: Path) -> ImportedModel:
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    return import_model(path, {})


def test_inputs_hold_what_their_type_can_hold(tmp_path: Path) -> None:
    types = {"f": TensorProto.FLOAT8E4M3FN, "i": TensorProto.INT4, "u": TensorProto.UINT2}
    nodes = [
        helper.make_node("Cast", [name], [f"{name}_out"], to=TensorProto.FLOAT) for name in types
    ]
    model = network(
        nodes,
        {name: (kind, [4]) for name, kind in types.items()},
        {f"{name}_out": (TensorProto.FLOAT, [4]) for name in types},
    )
    imported = imported_from(model, tmp_path)
    assert [spec.dtype for spec in imported.inputs] == ["float32", "int8", "uint8"]
    assert imported.notes == (
        "input 'f' is float8e4m3fn: pass its values as float32",
        "input 'i' is int4: pass its values as int8, from -8 to 7",
        "input 'u' is uint2: pass its values as uint8, from 0 to 3",
    )
    found = answers(
        model,
        np.array([0.3, -1e9, 2, -0.0], np.float32),
        np.array([-100, -8, 7, 8], np.int8),
        np.array([0, 3, 4, 255], np.uint8),
    )
    assert found[0].tolist() == [0.3125, -448, 2, 0]
    assert found[1].tolist() == [-8, -8, 7, 7]
    assert found[2].tolist() == [0, 3, 3, 3]


def along(block_size: int) -> dict[str, Any]:
    """Attributes: a scale for each column, or for each so many rows of each column."""
    return {"axis": 0, "block_size": block_size} if block_size else {"axis": 1}


@pytest.mark.parametrize("block_size", [0, 4])
@pytest.mark.parametrize("name", ["int4", "uint2", "float8_e5m2", "float4_e2m1fn"])
def test_quantised_weights_are_what_onnx_makes_of_them(name: str, block_size: int) -> None:
    generator = np.random.default_rng(3)
    dtype = np.dtype(getattr(ml_dtypes, name))
    low = 0 if name.startswith("uint") else -2
    quantised = generator.integers(low, 2, (10, 6)).astype(dtype)
    # Three blocks of 4 make 12: the last one is cut short.
    scales = generator.uniform(0.5, 2, (3, 6) if block_size else 6).astype(np.float32)
    zeros = (generator.integers(0, 2, scales.shape) if "int" in name else 0 * scales).astype(dtype)
    attributes = along(block_size)
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["w"], **attributes),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    constants = {"q": quantised, "s": scales, "z": zeros}
    x = generator.standard_normal((2, 10)).astype(np.float32)
    model = network(
        nodes, {"x": (TensorProto.FLOAT, [2, 10])}, {"y": (TensorProto.FLOAT, [2, 6])}, constants
    )
    (answer,) = answers(model, x)
    wide = np.repeat(np.stack([scales, zeros.astype(np.float32)]), 4, axis=1)[:, :10]
    scale, zero = wide if block_size else (scales, zeros.astype(np.float32))
    wanted = x @ ((quantised.astype(np.float32) - zero) * scale)
    assert kernels.error_of(answer, wanted) < 1e-6


@pytest.mark.parametrize("block_size", [0, 4])
@pytest.mark.parametrize("name", ["INT4", "UINT4", "INT2", "FLOAT8E4M3FN", "FLOAT4E2M1"])
def test_quantised_activations_are_what_onnx_makes_of_them(name: str, block_size: int) -> None:
    generator = np.random.default_rng(4)
    to = TensorProto.DataType.Value(name)
    scales = generator.uniform(0.05, 0.5, (2, 5) if block_size else 5).astype(np.float32)
    axis = along(block_size)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s"], ["q"], output_dtype=to, **axis),
        helper.make_node("DequantizeLinear", ["q", "s"], ["y"], **axis),
    ]
    model = network(
        nodes,
        {"x": (TensorProto.FLOAT, [8, 5])},
        {"q": (to, [8, 5]), "y": (TensorProto.FLOAT, [8, 5])},
        {"s": scales},
    )
    x = (generator.standard_normal((8, 5)) * 2).astype(np.float32)
    codes, values = answers(model, x)
    wanted = list(ReferenceEvaluator(model).run(None, {"x": x}))
    assert np.array_equal(codes, wanted[0].astype(codes.dtype))
    assert kernels.error_of(values, wanted[1]) < 1e-6
    assert len(np.unique(codes)) > 3


def bfloat16_network() -> tuple[onnx.ModelProto, list[np.ndarray]]:
    weight = kernels.weights(8, 16).astype(ml_dtypes.bfloat16)
    bias = kernels.weights(16).astype(ml_dtypes.bfloat16)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["xw"]),
        helper.make_node("Add", ["xw", "b"], ["sum"]),
        helper.make_node("Tanh", ["sum"], ["y"]),
    ]
    kind = TensorProto.BFLOAT16
    constants = {"w": weight, "b": bias}
    model = network(nodes, {"x": (kind, [3, 8])}, {"y": (kind, [3, 16])}, constants)
    return model, [array.astype(np.float32) for array in (weight, bias)]


def test_bfloat16_is_computed_in_float32() -> None:
    model, (weight, bias) = bfloat16_network()
    x = np.random.default_rng(1).standard_normal((3, 8)).astype(np.float32)
    (answer,) = answers(model, x)
    rounded = x.astype(ml_dtypes.bfloat16).astype(np.float32)
    assert kernels.error_of(answer, np.tanh(rounded @ weight + bias)) < 1e-6
    assert kernels.error_of(answer, np.tanh(x @ weight + bias)) > 1e-4


def test_notes_say_that_bfloat16_is_computed_in_float32(tmp_path: Path) -> None:
    assert imported_from(bfloat16_network()[0], tmp_path).notes == (
        "input 'x' is bfloat16: pass its values as float32",
        "output 'y' is bfloat16: its values are given as float32",
        "the model computes in bfloat16: edgepack computes in float32 instead",
    )


def round_trip(name: str) -> onnx.ModelProto:
    """An input of the type, and an output of it made from another input."""
    to = int(TensorProto.DataType.Value(name))
    nodes = [
        helper.make_node("Cast", ["x"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["wide", "other"], ["sum"]),
        helper.make_node("Cast", ["sum"], ["y"], to=to),
    ]
    return network(
        nodes,
        {"x": (to, [40]), "other": (TensorProto.FLOAT, [40])},
        {"y": (to, [40]), "sum": (TensorProto.FLOAT, [40])},
    )


@pytest.mark.parametrize("name", CARRIED_TYPES)
def test_golden_vectors_are_made_and_kept_for_every_type(name: str, tmp_path: Path) -> None:
    model = round_trip(name.upper())
    vectors = golden.make_golden(imported_from(model, tmp_path), 1e-3)
    assert vectors.distinct
    compiled = kernels.compile_network(model, load_target("host"))

    def infer(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        names = [spec.name for spec in compiled.imported.outputs]
        given = [inputs[spec.name] for spec in compiled.imported.inputs]
        return dict(zip(names, kernels.run(compiled, given), strict=True))

    assert golden.compare(vectors, infer, "here") < 1e-6


def test_the_file_stays_the_reference_where_onnxruntime_takes_it(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "s"], ["w"]),
        helper.make_node("Add", ["x", "w"], ["y"]),
    ]
    constants = {
        "q": np.array([1, -8], np.int8).astype(ml_dtypes.int4),
        "s": np.array(0.5, np.float32),
    }
    value = {"x": (TensorProto.FLOAT, [2])}, {"y": (TensorProto.FLOAT, [2])}
    imported = imported_from(network(nodes, *value, constants), tmp_path)
    assert imported.reference is None
    assert imported.notes == ()
    constants["s"] = np.array(0.5, np.float32).astype(ml_dtypes.bfloat16)
    nodes[0].attribute.append(helper.make_attribute("output_dtype", TensorProto.FLOAT))
    imported = imported_from(network(nodes, *value, constants), tmp_path)
    assert imported.reference is not None


def test_types_are_exchanged_inside_branches_and_functions() -> None:
    def branch(name: str, to: int) -> onnx.GraphProto:
        nodes = [
            helper.make_node("Cast", ["x"], [f"{name}_narrow"], to=to),
            helper.make_node("CastLike", [f"{name}_narrow", "x"], [name], name="like"),
        ]
        return helper.make_graph(
            nodes, name, [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, [3])]
        )

    nodes = [
        helper.make_node(
            "If",
            ["choice"],
            ["chosen"],
            then_branch=branch("coarse", TensorProto.FLOAT4E2M1),
            else_branch=branch("fine", TensorProto.FLOAT8E5M2),
        ),
        helper.make_node("Rounding", ["chosen"], ["y"], domain="own"),
    ]
    body = [
        helper.make_node("Cast", ["a"], ["n"], to=TensorProto.INT4),
        helper.make_node("CastLike", ["n", "a"], ["b"]),
    ]
    function = helper.make_function(
        "own", "Rounding", ["a"], ["b"], body, [helper.make_opsetid("", 25)]
    )
    model = network(
        nodes,
        {"choice": (TensorProto.BOOL, []), "x": (TensorProto.FLOAT, [3])},
        {"chosen": (TensorProto.FLOAT, [3]), "y": (TensorProto.FLOAT, [3])},
        functions=[function],
    )
    x = np.array([1.2, -3.4, 9.0], np.float32)
    for choice, rounded, low_bits in (
        (True, [1, -3, 6], [1, -3, 6]),
        (False, [1.25, -3.5, 8], [1, -3, -8]),
    ):
        chosen, y = answers(model, np.array(choice), x)
        assert chosen.tolist() == rounded
        assert y.tolist() == low_bits


def test_other_operators_take_the_type_that_carries() -> None:
    kind = TensorProto.BFLOAT16
    nodes = [
        helper.make_node("EyeLike", ["x"], ["eye"], dtype=kind),
        helper.make_node(
            "ConstantOfShape",
            ["shape"],
            ["twos"],
            value=helper.make_tensor("two", kind, [1], [2.0]),
        ),
        helper.make_node("Mul", ["eye", "twos"], ["product"]),
        helper.make_node("Where", ["mask", "product", "x"], ["y"]),
    ]
    model = network(
        nodes,
        {"x": (kind, [2, 2])},
        {"y": (kind, [2, 2])},
        {"shape": np.array([2, 2], np.int64), "mask": np.eye(2, dtype=bool)},
    )
    (answer,) = answers(model, np.array([[5, 6], [7, 8]], np.float32))
    assert answer.tolist() == [[2, 6], [7, 2]]


def test_operators_on_the_bits_of_a_type_are_refused(tmp_path: Path) -> None:
    node = helper.make_node("BitCast", ["x"], ["y"], to=TensorProto.UINT16, name="bits")
    model = network([node], {"x": (TensorProto.BFLOAT16, [2])}, {"y": (TensorProto.UINT16, [2])})
    model.opset_import[0].version = 26
    with pytest.raises(ModelError, match="BitCast 'bits' works on bfloat16"):
        imported_from(model, tmp_path)


def test_large_weights_are_carried_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quantised = np.arange(64).reshape(8, 8) % 16 - 8
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "s"], ["w"], axis=0, block_size=4),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    scales = np.arange(1, 17, dtype=np.float32).reshape(2, 8)
    model = network(
        nodes,
        {"x": (TensorProto.FLOAT, [1, 8])},
        {"y": (TensorProto.FLOAT, [1, 8])},
        {"q": quantised.astype(ml_dtypes.int4), "s": scales},
    )
    monkeypatch.setattr(weights, "LARGE_TENSOR_BYTES", 16)
    monkeypatch.setattr(weights, "LARGE_MODEL_BYTES", 96)  # what they take in the file
    kept = {t.name: t.data_type for t in imported_from(model, tmp_path).model.graph.initializer}
    assert kept["q"] == TensorProto.INT8  # set aside, or it would be a part of w
    x = np.array([[1, -2, 3, -4, 5, -6, 7, -8]], np.float32)
    (answer,) = answers(model, x)
    assert np.array_equal(answer, x @ (quantised * np.repeat(scales, 4, axis=0)))


def test_large_models_without_a_reference_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "LARGE_TENSOR_BYTES", 16)
    monkeypatch.setattr(weights, "LARGE_MODEL_BYTES", 400)  # what its bfloat16 take, and then some
    with pytest.raises(ModelError, match="too large for ONNX Runtime to say what is right"):
        imported_from(bfloat16_network()[0], tmp_path)

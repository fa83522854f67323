"""What inspect says of a model: tensors, operators, parameters, FLOPs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgepack.cli.model_summary import summarise

Shape = Sequence[int | str | None]


def model(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, Shape],
    outputs: dict[str, Shape | None],
    **constants: np.ndarray,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


CASES: list[tuple[str, onnx.ModelProto, int]] = [
    (
        "a padded, strided, grouped convolution",
        model(
            [helper.make_node("Conv", ["x", "w"], ["y"], pads=[1] * 4, strides=[2, 2], group=2)],
            {"x": [1, 4, 8, 8]},
            {"y": None},
            w=zeros(6, 2, 3, 3),
        ),
        2 * (6 * 4 * 4) * (2 * 3 * 3),
    ),
    (
        "a transposed convolution",
        model(
            [helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2])],
            {"x": [1, 4, 5, 5]},
            {"y": None},
            w=zeros(4, 3, 2, 2),
        ),
        2 * (4 * 5 * 5) * (3 * 2 * 2),
    ),
    (
        "a batched matrix product",
        model(
            [helper.make_node("MatMul", ["x", "w"], ["y"])],
            {"x": [5, 7, 3]},
            {"y": None},
            w=zeros(3, 2),
        ),
        2 * 5 * 7 * 3 * 2,
    ),
    (
        "a product with a transposed operand",
        model(
            [helper.make_node("Gemm", ["x", "w"], ["y"], transA=1)],
            {"x": [3, 7]},
            {"y": None},
            w=zeros(3, 2),
        ),
        2 * 7 * 3 * 2,
    ),
    (
        "no product at all",
        model([helper.make_node("Relu", ["x"], ["y"])], {"x": [9]}, {"y": [9]}),
        0,
    ),
]


@pytest.mark.parametrize(
    ("proto", "flops"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
def test_flops_are_two_for_each_multiplication(proto: onnx.ModelProto, flops: int) -> None:
    assert summarise(proto)["flops"] == flops


def test_flops_are_unknown_while_a_shape_is() -> None:
    proto = model(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        {"x": ["batch", 3]},
        {"y": None},
        w=zeros(3, 2),
    )
    assert summarise(proto)["flops"] is None


def test_dynamic_dimensions_stand_as_their_symbols() -> None:
    proto = model(
        [helper.make_node("Relu", ["x"], ["y"])], {"x": ["batch", 3, None, -1]}, {"y": None}
    )
    assert summarise(proto)["inputs"] == [
        {"name": "x", "dtype": "float32", "shape": ["batch", 3, "?", "?"]}
    ]


def test_constants_are_parameters_and_no_inputs_and_shapes_are_not_counted() -> None:
    constant = helper.make_node(
        "Constant", [], ["b"], value=numpy_helper.from_array(zeros(4), "value")
    )
    nodes = [
        constant,
        helper.make_node("Add", ["x", "b"], ["s"]),
        helper.make_node("Mul", ["s", "w"], ["m"]),
        helper.make_node("Reshape", ["m", "shape"], ["y"]),
    ]
    proto = model(nodes, {"x": [2, 4]}, {"y": None}, w=zeros(4), shape=np.array([8]))
    proto.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [4]))
    found = summarise(proto)
    assert [tensor["name"] for tensor in found["inputs"]] == ["x"]
    assert found["parameters"] == 8
    assert found["ops"] == {"Add": 1, "Mul": 1, "Reshape": 1}


def test_operators_of_branches_are_counted() -> None:
    def branch(operator: str) -> onnx.GraphProto:
        out = helper.make_tensor_value_info(operator, TensorProto.FLOAT, [2])
        return helper.make_graph(
            [helper.make_node(operator, ["x"], [operator])], operator, [], [out]
        )

    node: Any = helper.make_node(
        "If", ["c"], ["y"], then_branch=branch("Relu"), else_branch=branch("Neg")
    )
    proto = model([node], {"x": [2]}, {"y": [2]}, c=np.array(True))
    assert summarise(proto)["ops"] == {"If": 1, "Relu": 1, "Neg": 1}

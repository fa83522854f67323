"""Concatenations that their producers write in place, and those that need a kernel."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests import kernels, networks

FLOAT = TensorProto.FLOAT


def network(
    nodes: list[onnx.NodeProto],
    inputs: Mapping[str, list[int]],
    outputs: Mapping[str, list[int]],
    weights: Mapping[str, list[int]],
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "concat",
        [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(kernels.weights(*s), name) for name, s in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def convolution(data: str, weights: str, result: str, kernel: int) -> list[onnx.NodeProto]:
    pads = [kernel // 2] * 4
    return [
        helper.make_node("Conv", [data, weights], [f"{result}_c"], pads=pads),
        helper.make_node("Relu", [f"{result}_c"], [result]),
    ]


def concatenations(compiled: kernels.Kernels) -> int:
    return sum("concatenate" in (call.symbol or "") for call in compiled.plan.calls)


FIRE = [
    *convolution("x", "s", "squeezed", 1),
    *convolution("squeezed", "one", "left", 1),
    *convolution("squeezed", "three", "right", 3),
    helper.make_node("Concat", ["left", "right"], ["both"], axis=1),
]
WEIGHTS = {"s": [6, 3, 1, 1], "one": [5, 6, 1, 1], "three": [37, 6, 3, 3], "last": [4, 42, 1, 1]}


@pytest.mark.parametrize("profile", kernels.PROFILES)
def test_convolutions_write_their_part_of_a_concatenation(profile: str) -> None:
    nodes = [*FIRE, helper.make_node("Conv", ["both", "last"], ["y"])]
    compiled, _ = kernels.check(
        network(nodes, {"x": [1, 3, 7, 9]}, {"y": [1, 4, 7, 9]}, WEIGHTS), profile
    )
    assert concatenations(compiled) == 0


def test_a_concatenation_of_concatenations_is_written_once() -> None:
    nodes = [
        *FIRE,
        *convolution("x", "more_s", "more", 1),
        helper.make_node("Concat", ["both", "more"], ["all"], axis=1),
        *convolution("all", "wide", "y", 1),
    ]
    weights = WEIGHTS | {"more_s": [7, 3, 1, 1], "wide": [3, 49, 1, 1]}
    compiled, _ = kernels.check(
        network(nodes, {"x": [1, 3, 5, 5]}, {"y": [1, 3, 5, 5]}, weights), kernels.PROFILES[-1]
    )
    assert concatenations(compiled) == 0


def test_parts_that_are_reshaped_on_the_way_are_copied_rightly() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "left_w"], ["left"]),
        helper.make_node("MatMul", ["x", "right_w"], ["right"]),
        helper.make_node("Reshape", ["left", "shape"], ["left_3"]),
        helper.make_node("Reshape", ["right", "shape"], ["right_3"]),
        helper.make_node("Concat", ["left_3", "right_3"], ["y"], axis=0),
    ]
    constants = {
        "left_w": kernels.weights(3, 4),
        "right_w": kernels.weights(3, 4) * 2,
        "shape": np.array([1, 1, 4]),
    }
    model = networks.model(nodes, {"x": [1, 3]}, {"y": [2, 1, 4]}, constants)
    kernels.check(model, kernels.PROFILES[-1])


def test_a_part_that_others_read_is_copied() -> None:
    nodes = [
        *FIRE,
        *convolution("both", "last", "a", 1),
        *convolution("left", "from_left", "b", 1),
        helper.make_node("Add", ["a", "b"], ["y"]),
    ]
    weights = WEIGHTS | {"from_left": [4, 5, 1, 1]}
    compiled, _ = kernels.check(
        network(nodes, {"x": [1, 3, 5, 5]}, {"y": [1, 4, 5, 5]}, weights), kernels.PROFILES[-1]
    )
    assert concatenations(compiled) == 1


def test_a_part_that_is_an_input_is_copied() -> None:
    nodes = [
        *convolution("x", "s", "a", 1),
        helper.make_node("Concat", ["a", "x"], ["both"], axis=1),
        helper.make_node("Conv", ["both", "last"], ["y"]),
    ]
    weights = {"s": [6, 3, 1, 1], "last": [4, 9, 1, 1]}
    compiled, _ = kernels.check(
        network(nodes, {"x": [1, 3, 5, 5]}, {"y": [1, 4, 5, 5]}, weights), kernels.PROFILES[-1]
    )
    assert concatenations(compiled) == 1


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_parts_along_any_axis_of_a_result(axis: int) -> None:
    shape = [3, 5, 7]
    whole = [extent * (2 if i == axis else 1) for i, extent in enumerate(shape)]
    nodes = [
        helper.make_node("Exp", ["x"], ["a"]),
        helper.make_node("ReduceSum", ["x"], ["total"], keepdims=1),
        helper.make_node("Mul", ["x", "total"], ["b"]),
        helper.make_node("Concat", ["a", "b"], ["y"], axis=axis),
    ]
    kernels.check(network(nodes, {"x": shape}, {"y": whole}, {}), kernels.PROFILES[-1])

"""Loops and scans become what their bodies compute, on the original's numbers."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgepack.errors import ModelError
from edgepack.importers.passes import loops
from tests.bounded_models import (
    agree,
    differ,
    imported,
    network,
    node,
    normal,
    same_as_runtime,
    subgraph,
)
from tests.kernels import error_of, expected

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
START: dict[str, tuple[int, Any]] = {"i": (INT64, []), "going": (BOOL, [])}


def loop(
    body: onnx.GraphProto, outputs: str, *, inputs: str = "trips start x", name: str = "repeat"
) -> onnx.NodeProto:
    return node("Loop", inputs, outputs, body=body, name=name)


def powers(rank: int = 0) -> onnx.GraphProto:
    """x = x * 0.9 + number of the iteration; gives every x. ``rank`` is that of number and condition."""
    nodes = [
        node("Identity", "going", "on"),
        node("Cast", "i", "number", to=FLOAT),
        node("Mul", "x_in factor", "scaled"),
        node("Add", "scaled number", "x_out"),
        node("Mul", "x_out factor", "row"),
    ]
    inputs = {"i": (INT64, [1] * rank), "going": (BOOL, [1] * rank), "x_in": (FLOAT, [3])}
    return subgraph(nodes, inputs, "on x_out row", {"factor": np.float32(0.9)})


CONSTANT = {"trips": 5, "start": True}


@pytest.mark.parametrize(
    ("inputs", "constants", "rank"),
    [
        ("trips start x", CONSTANT, 0),
        ("trips - x", {"trips": 5}, 0),
        ("trips start x", {"trips": [5], "start": [True]}, 1),
    ],
)
def test_loop_of_constant_length_gives_its_last_value_and_every_row(
    inputs: str, constants: dict[str, object], rank: int
) -> None:
    nodes = [loop(powers(rank), "last rows", inputs=inputs)]
    model = network(nodes, {"x": normal(3)}, "last rows", constants)
    for seed in (1, 2):
        assert "Concat" in same_as_runtime(model, {"x": normal(3, seed=seed)})


def test_output_that_nobody_wants_may_have_no_name() -> None:
    """ONNX Runtime ends with a segmentation fault here: it runs the loop with both."""
    whole = network([loop(powers(), "last rows")], {"x": normal(3)}, "last rows", CONSTANT)
    part = network([loop(powers(), "last rows")], {"x": normal(3)}, "rows", CONSTANT)
    part.graph.node[0].output[0] = ""
    values = [normal(3, seed=4)]
    (rows,) = expected(imported(part).model, ["x"], values)
    assert error_of(rows, expected(whole, ["x"], values)[1]) <= 1e-6


def test_condition_on_the_iterations_number_ends_the_loop_at_once() -> None:
    nodes = [
        node("Less", "i last", "on"),
        node("Mul", "x_in x_in", "x_out"),
    ]
    inputs = {**START, "x_in": (FLOAT, [3])}
    body = subgraph(nodes, inputs, "on x_out", {"last": np.int64(2)})
    model = network([loop(body, "y", inputs="- - x")], {"x": normal(3)}, "y")
    assert same_as_runtime(model, {"x": normal(3, seed=1)}).count("Mul") == 3


def test_condition_on_a_counter_that_the_loop_carries_is_computed() -> None:
    nodes = [
        node("Add", "count_in two", "count_out"),
        node("Less", "count_out limit", "on"),
        node("Add", "x_in bias", "sum"),
        node("Tanh", "sum", "x_out"),
    ]
    inputs = {**START, "count_in": (INT64, []), "x_in": (FLOAT, [3])}
    body = subgraph(
        nodes, inputs, "on count_out x_out", {"two": np.int64(2), "bias": np.float32(1)}
    )
    model = network(
        [loop(body, "n y", inputs="trips start zero x")],
        {"x": normal(3)},
        "n y",
        {"trips": np.iinfo(np.int64).max, "start": True, "zero": 0, "limit": 7},
    )
    assert same_as_runtime(model, {"x": normal(3, seed=1)}).count("Tanh") == 4


def test_shapes_inside_fold_by_the_iterations_number() -> None:
    """Slices [0:i+1] and a value that grows: every shape differs from iteration to iteration."""
    nodes = [
        node("Identity", "going", "on"),
        node("Add", "i one", "end"),
        node("Reshape", "end vector", "ends"),
        node("Slice", "data zeros ends", "part"),
        node("ReduceSum", "part", "sum", keepdims=0),
        node("Reshape", "sum vector", "sums"),
        node("Concat", "grown_in sums", "grown_out", axis=0),
    ]
    inputs = {**START, "grown_in": (FLOAT, [None])}
    constants = {"one": np.int64(1), "vector": np.array([1]), "zeros": np.array([0])}
    body = subgraph(nodes, inputs, "on grown_out", constants)
    model = network(
        [loop(body, "y", inputs="trips start data")],
        {"data": normal(6)},
        "y",
        {"trips": 4, "start": True},
    )
    operators = same_as_runtime(model, {"data": normal(6, seed=1)})
    assert "Reshape" in operators
    assert imported(model).outputs[0].shape == (10,)


def test_loop_in_a_loop_reads_values_of_both_levels_outside() -> None:
    inner = subgraph(
        [
            node("Identity", "going2", "on2"),
            node("Add", "y_in scaled", "partial"),
            node("Add", "partial x", "y_out"),
        ],
        {"j": (INT64, []), "going2": (BOOL, []), "y_in": (FLOAT, [3])},
        "on2 y_out",
    )
    outer = subgraph(
        [
            node("Identity", "going", "on"),
            node("Cast", "i", "number", to=FLOAT),
            node("Mul", "x_in number", "scaled"),
            node("Loop", "three start x_in", "x_out", body=inner, name="inner"),
        ],
        {**START, "x_in": (FLOAT, [3])},
        "on x_out",
        {"three": np.int64(3)},
    )
    model = network([loop(outer, "y")], {"x": normal(3)}, "y", {"trips": 2, "start": True})
    for seed in (1, 2):
        same_as_runtime(model, {"x": normal(3, seed=seed)})


def test_branch_by_the_iterations_number_is_taken_at_once() -> None:
    def branch(operator: str) -> onnx.GraphProto:
        return subgraph([node(operator, "x_in", operator)], {}, operator)

    nodes = [
        node("Identity", "going", "on"),
        node("Equal", "i one", "is_one"),
        node("If", "is_one", "x_out", then_branch=branch("Neg"), else_branch=branch("Exp")),
    ]
    inputs = {**START, "x_in": (FLOAT, [3])}
    body = subgraph(nodes, inputs, "on x_out", {"one": np.int64(1)})
    model = network([loop(body, "y")], {"x": normal(3)}, "y", {"trips": 3, "start": True})
    assert same_as_runtime(model, {"x": normal(3, seed=1)}) == ["Exp", "Neg", "Exp"]


def test_constants_of_a_body_are_in_the_model_once() -> None:
    weight = normal(8, 8)
    value = helper.make_node("Constant", [], ["w"], value=onnx.numpy_helper.from_array(weight))
    nodes = [value, node("Identity", "going", "on"), node("MatMul", "x_in w", "x_out")]
    body = subgraph(nodes, {**START, "x_in": (FLOAT, [1, 8])}, "on x_out")
    model = network([loop(body, "y")], {"x": normal(1, 8)}, "y", {"trips": 9, "start": True})
    found = imported(model).model
    assert [proto.op_type for proto in found.graph.node] == ["MatMul"] * 9
    assert len([t for t in found.graph.initializer if list(t.dims) == [8, 8]]) == 1


@pytest.mark.parametrize("limit", [8, None])
def test_loop_that_data_end_keeps_its_values_and_counts_its_rows(limit: int | None) -> None:
    """x doubles until its sum is above 20: one to six iterations."""
    nodes = [
        node("Add", "x_in x_in", "x_out"),
        node("ReduceSum", "x_out", "sum", keepdims=0),
        node("Less", "sum most", "on"),
        node("Neg", "x_out", "row"),
    ]
    inputs = {**START, "x_in": (FLOAT, [3])}
    body = subgraph(nodes, inputs, "on x_out row", {"most": np.float32(20)})
    constants = {"trips": 8, "start": True} if limit else {"start": True}
    names = "trips start x" if limit else "- start x"
    model = network(
        [loop(body, "last rows", inputs=names)], {"x": normal(3)}, "last rows", constants
    )
    sets = [{"x": np.full(3, value, np.float32)} for value in (9.0, 1.6, 0.9, 0.2)]
    counts = agree(model, sets, {} if limit else {"repeat": 8})
    assert [each["repeat_count"] for each in counts] == [1, 3, 3, 6]


def test_number_of_iterations_that_is_an_input_needs_a_bound() -> None:
    model = network(
        [loop(powers(), "last rows")],
        {"trips": np.array(3), "x": normal(3)},
        "last rows",
        {"start": True},
    )
    with pytest.raises(ModelError, match="how often Loop 'repeat' runs depends on data") as caught:
        imported(model)
    assert caught.value.hint.startswith("Add --bound repeat=100")
    sets = [{"trips": np.array(trips), "x": normal(3, seed=trips)} for trips in (1, 2, 5)]
    assert differ(agree(model, sets, {"repeat": 5}))


def test_value_whose_shape_changes_in_a_loop_that_data_end_is_refused() -> None:
    nodes = [
        node("ReduceSum", "x_in", "sum", keepdims=0),
        node("Less", "sum most", "on"),
        node("Concat", "x_in x_in", "x_out", axis=0),
    ]
    inputs = {**START, "x_in": (FLOAT, [None])}
    body = subgraph(nodes, inputs, "on x_out", {"most": np.float32(20)})
    model = network([loop(body, "y")], {"x": normal(3)}, "y", {"trips": 3, "start": True})
    with pytest.raises(ModelError, match="Loop 'repeat' ends when its data say so, and changes"):
        imported(model)


def test_too_many_iterations_are_refused_by_name_and_number() -> None:
    model = network(
        [loop(powers(), "last rows")],
        {"x": normal(3)},
        "last rows",
        {"trips": loops.MAX_NODES, "start": True},
    )
    with pytest.raises(ModelError, match="Loop 'repeat' would become 100000 nodes, 20000 times"):
        imported(model)


def test_loop_that_never_runs_gives_what_it_was_given() -> None:
    nodes = [node("Identity", "going", "on"), node("Exp", "x_in", "x_out")]
    body = subgraph(nodes, {**START, "x_in": (FLOAT, [3])}, "on x_out")
    nodes = [loop(body, "y"), node("Neg", "y", "z")]
    model = network(nodes, {"x": normal(3)}, "z", {"trips": 0, "start": True})
    assert same_as_runtime(model, {"x": normal(3, seed=1)}) == ["Neg"]
    rows = network(
        [loop(powers(), "last rows")], {"x": normal(3)}, "last rows", {"trips": 0, "start": True}
    )
    with pytest.raises(ModelError, match="Loop 'repeat' makes no iteration"):
        imported(rows)


def test_long_loop_is_unrolled_within_seconds() -> None:
    model = network(
        [loop(powers(), "last rows")], {"x": normal(3)}, "last rows", {"trips": 400, "start": True}
    )
    before = time.monotonic()
    assert imported(model).outputs[1].shape == (400, 3)
    assert time.monotonic() - before < 60


def test_body_that_does_not_fit_its_loop_is_refused() -> None:
    model = network([loop(powers(), "last rows")], {"x": normal(3)}, "last rows", CONSTANT)
    model.graph.node[0].attribute[0].g.input.pop()
    with pytest.raises(ModelError):
        imported(model)

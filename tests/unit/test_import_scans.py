"""Scans become what their bodies compute, step by step, on the original's numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from tests.bounded_models import Arrays, imported, network, node, normal, same_as_runtime, subgraph
from tests.kernels import error_of, expected

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


def scan(body: onnx.GraphProto, inputs: str, outputs: str, **attributes: object) -> onnx.NodeProto:
    return node("Scan", inputs, outputs, body=body, name="steps", num_scan_inputs=2, **attributes)


def accumulation() -> onnx.GraphProto:
    """Sums of a and half of b; gives them, and the product with each."""
    nodes = [
        node("Mul", "b half", "weighed"),
        node("Add", "a weighed", "both"),
        node("Add", "sum_in both", "sum_out"),
        node("Identity", "sum_out", "row"),
        node("Mul", "sum_in b", "product"),
    ]
    inputs = {name: (FLOAT, [2]) for name in ("sum_in", "a", "b")}
    return subgraph(nodes, inputs, "sum_out row product", {"half": np.float32(0.5)})


@pytest.mark.parametrize(
    ("attributes", "shapes"),
    [
        ({}, [(2,), (4, 2), (4, 2)]),
        ({"scan_input_directions": [1, 0]}, [(2,), (4, 2), (4, 2)]),
        ({"scan_output_directions": [0, 1]}, [(2,), (4, 2), (4, 2)]),
        ({"scan_input_axes": [1, -1]}, [(2,), (2, 4), (2, 4)]),
        ({"scan_output_axes": [1, 0], "scan_input_directions": [1, 1]}, [(2,), (4, 2), (4, 2)]),
        ({"scan_output_axes": [-1, -2]}, [(2,), (4, 2), (4, 2)]),
    ],
    ids=str,
)
def test_scan_over_axes_and_in_directions(
    attributes: dict[str, list[int]], shapes: Sequence[tuple[int, ...]]
) -> None:
    nodes = [scan(accumulation(), "start a b", "last rows products", **attributes)]
    given = dict(zip(("start", "a", "b"), shapes, strict=True))
    sets = [
        {n: normal(*s, seed=i * 7 + k) for k, (n, s) in enumerate(given.items())} for i in (1, 2)
    ]
    model = network(nodes, sets[0], "last rows products")
    for inputs in sets:
        assert same_as_runtime(model, inputs).count("Add") == 8


def test_scan_of_a_batch_as_opset_8_has_it() -> None:
    """ONNX Runtime cannot take a batch here, so that each entry is compared alone."""
    whole = {"start": normal(3, 2), "a": normal(3, 4, 2), "b": normal(3, 4, 2, seed=1)}

    def of(inputs: Arrays) -> onnx.ModelProto:
        nodes = [scan(accumulation(), "- start a b", "last rows products", directions=[0, 1])]
        return network(nodes, inputs, "last rows products", opset=8)

    found = imported(of(whole)).model
    results = expected(found, list(whole), list(whole.values()))
    for entry in range(3):
        part = {name: value[entry : entry + 1] for name, value in whole.items()}
        wanted = expected(of(part), list(part), list(part.values()))
        for ours, theirs in zip(results, wanted, strict=True):
            assert error_of(ours[entry : entry + 1], theirs) <= 1e-6


def test_scan_in_a_loop_is_unrolled_too() -> None:
    inner = accumulation()
    nodes = [
        node("Identity", "going", "on"),
        scan(inner, "x_in a b", "x_out rows products"),
    ]
    body = subgraph(
        nodes, {"i": (INT64, []), "going": (BOOL, []), "x_in": (FLOAT, [2])}, "on x_out"
    )
    given = {"x": normal(2), "a": normal(4, 2), "b": normal(4, 2, seed=1)}
    model = network(
        [node("Loop", "trips start x", "y", body=body)], given, "y", {"trips": 3, "start": True}
    )
    assert "Concat" not in same_as_runtime(model, given)

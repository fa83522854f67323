from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from edgepack.compiler import constants, frontend
from tests import networks, relax_graphs
from tests.kernels import integers, weights
from tests.networks import node


def folded(nodes: list[onnx.NodeProto], result: list[int], **parameters: Any) -> Any:
    """The folded module of y = x + (nodes' result "c")."""
    network = networks.model(
        [*nodes, node("Add", "x c", "y")], {"x": result}, {"y": result}, parameters
    )
    module = constants.fold(frontend.to_relax(network))
    relax_graphs.assert_same_results(module, network, tolerance=0)
    return module


CHAINS: dict[str, tuple[list[onnx.NodeProto], list[int], dict[str, Any]]] = {
    "transposed": (
        [node("Transpose", "w", "c", perm=[2, 0, 1])],
        [5, 2, 3],
        {"w": weights(2, 3, 5)},
    ),
    "reversed axes": ([node("Transpose", "w", "c")], [5, 3, 2], {"w": weights(2, 3, 5)}),
    "reshaped": (
        [node("Reshape", "w s", "c")],
        [6, 5],
        {"w": weights(2, 3, 5), "s": integers(6, 5)},
    ),
    "squeezed and unsqueezed": (
        [node("Squeeze", "w a", "t"), node("Unsqueeze", "t b", "c")],
        [3, 1, 5],
        {"w": weights(1, 3, 5), "a": integers(0), "b": integers(1)},
    ),
    "arithmetic with broadcasting": (
        [node("Add", "w v", "s"), node("Mul", "s v", "m"), node("Sub", "m w", "c")],
        [3, 5],
        {"w": weights(3, 5), "v": weights(5)},
    ),
    "root and sign": (
        [node("Sqrt", "w", "s"), node("Neg", "s", "c")],
        [3, 5],
        {"w": np.abs(weights(3, 5))},
    ),
    "chosen": (
        [node("IsNaN", "w", "n"), node("Where", "n v w", "c")],
        [3],
        {"w": np.array([1, np.nan, 2], np.float32), "v": weights(3)},
    ),
}


@pytest.mark.parametrize("name", CHAINS)
def test_what_is_made_from_constants_alone_becomes_one(name: str) -> None:
    nodes, result, parameters = CHAINS[name]
    assert relax_graphs.operators(folded(nodes, result, **parameters)) == {"add": 1}


def test_what_numpy_is_not_asked_for_stays_an_operator() -> None:
    module = folded([node("Exp", "w", "e"), node("Neg", "e", "c")], [3], w=weights(3))
    assert relax_graphs.operators(module)["exp"] == 1
    assert relax_graphs.operators(module)["negative"] == 1


def test_a_network_without_constants_is_left_as_it_is() -> None:
    network = networks.model(
        [node("Transpose", "x", "t", perm=[1, 0]), node("MatMul", "x t", "y")],
        {"x": [3, 5]},
        {"y": [3, 3]},
    )
    module = frontend.to_relax(network)
    assert relax_graphs.operators(constants.fold(module)) == relax_graphs.operators(module)

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgepack.targets import load_target
from tests import inferred, kernels
from tests.kernels import weights

BEST = kernels.PROFILES[-1]
CLASSES = 10  # as many as tests' random targets have


def losses(
    operator: str, shape: tuple[int, ...], options: list[tuple[bool, dict[str, Any]]]
) -> onnx.ModelProto:
    """A node for each of ``options``: whether it has weights, and its attributes."""
    nodes, outputs = [], []
    for number, (weighted, attributes) in enumerate(options):
        names = [f"y{number}"]
        if operator == "SoftmaxCrossEntropyLoss":
            names.append(f"p{number}")
        operands = ["x", "t", *(["w"] if weighted else [])]
        nodes.append(helper.make_node(operator, operands, names, **attributes))
        outputs += names
    parameters = {"w": np.abs(weights(CLASSES)) + 0.1}
    inputs = {"x": shape, "t": (shape[0], *shape[2:])}
    types = {"t": TensorProto.INT64}
    return inferred.network(nodes, inputs, outputs, parameters, opset=13, types=types)


@pytest.mark.parametrize("operator", ["NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"])
@pytest.mark.parametrize("shape", [(7, CLASSES), (2, CLASSES, 5), (2, CLASSES, 3, 4)])
def test_losses(operator: str, shape: tuple[int, ...]) -> None:
    options = [
        (weighted, {"reduction": reduction} | ignored)
        for weighted in (False, True)
        for reduction in ("none", "sum", "mean")
        for ignored in ({}, {"ignore_index": 3})
    ]
    kernels.check(losses(operator, shape, options), BEST)


def test_target_that_is_no_class_reads_nothing_else() -> None:
    options = [(True, {"reduction": "none"})]
    network = losses("NegativeLogLikelihoodLoss", (4, CLASSES), options)
    compiled = kernels.compile_network(network, load_target(BEST))
    data = kernels.random_inputs(compiled.imported, 1)[0]
    bad, near = ([-1, 10, 1 << 40, -(1 << 40)], [0, 9, 9, 0])
    (answer,), (wanted,) = (
        kernels.run(compiled, [data, np.array(targets, np.int64)]) for targets in (bad, near)
    )
    assert np.array_equal(answer, wanted)

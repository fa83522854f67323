from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests import kernels, networks
from tests.kernels import integers
from tests.networks import node

BEST = kernels.PROFILES[-1]


def shuffled(groups: int) -> onnx.ModelProto:
    nodes = [
        node("Reshape", "x grouped", "r"),
        node("Transpose", "r", "t", perm=[0, 2, 1, 3, 4]),
        node("Reshape", "t flat", "f"),
        node("Transpose", "f", "y", perm=[0, 2, 3, 1]),
    ]
    shapes = {"grouped": integers(2, groups, 7, 5, 3), "flat": integers(2, 7 * groups, 5, 3)}
    return networks.model(nodes, {"x": [2, 7 * groups, 5, 3]}, {"y": [2, 5, 3, 7 * groups]}, shapes)


HEADS = networks.model(
    [
        node("Mul", "x scale", "m"),
        node("Reshape", "m split", "r"),
        node("Transpose", "r", "y", perm=[0, 2, 3, 1]),
        node("Transpose", "r", "z", perm=[0, 2, 1, 3]),
    ],
    {"x": [2, 13, 60]},
    {"y": [2, 3, 20, 13], "z": [2, 3, 13, 20]},
    {"split": integers(2, 13, 3, 20), "scale": np.float32(0.125)},
)

NETWORKS = {
    "two groups": shuffled(2),
    "three groups": shuffled(3),
    "five groups": shuffled(5),
    "heads": HEADS,
    "blocks to depth": networks.model(
        [
            node("SpaceToDepth", "x", "s", blocksize=2),
            node("Transpose", "s", "y", perm=[0, 2, 3, 1]),
        ],
        {"x": [2, 3, 6, 10]},
        {"y": [2, 3, 5, 12]},
    ),
    "depth to blocks": networks.model(
        [
            node("Transpose", "x", "t", perm=[0, 3, 1, 2]),
            node("DepthToSpace", "t", "y", blocksize=2, mode="CRD"),
        ],
        {"x": [2, 3, 5, 12]},
        {"y": [2, 3, 6, 10]},
    ),
}


@pytest.mark.parametrize("profile", kernels.EXTREMES)
@pytest.mark.parametrize("name", NETWORKS)
def test_movements_read_through_others(name: str, profile: str) -> None:
    kernels.check(NETWORKS[name], profile, rule="elementwise")


@pytest.mark.parametrize("name", ["two groups", "five groups", "heads", "blocks to depth"])
def test_no_index_is_divided(name: str) -> None:
    for line in kernels.loops_of(NETWORKS[name], BEST).splitlines():
        loads = line.partition("=")[2]
        assert "//" not in loads, line
        assert "%" not in loads, line


def test_a_movement_that_cannot_be_read_without_dividing_stays() -> None:
    nodes = [
        node("Reshape", "x flat", "r"),
        node("Tanh", "r", "y"),
        node("Transpose", "r", "z", perm=[1, 0]),
    ]
    network = networks.model(
        nodes, {"x": [7, 15]}, {"y": [21, 5], "z": [5, 21]}, {"flat": integers(21, 5)}
    )
    kernels.check(network, BEST, rule="elementwise")

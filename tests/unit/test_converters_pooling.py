from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgepack.targets import load_target
from tests import inferred, kernels, networks

BEST = kernels.PROFILES[-1]

SIGNAL, IMAGE, VOLUME = (2, 3, 17), (2, 5, 13, 9), (1, 2, 7, 6, 5)


def pools(
    operator: str, shape: tuple[int, ...], options: list[dict[str, Any]], opset: int = 19
) -> onnx.ModelProto:
    return inferred.several(operator, {"x": shape}, options, opset=opset)


SIGNAL_WINDOWS: list[dict[str, Any]] = [
    {"kernel_shape": [3]},
    {"kernel_shape": [2], "strides": [2], "ceil_mode": 1},
    {"kernel_shape": [5], "strides": [3], "pads": [2, 1], "ceil_mode": 1},
    {"kernel_shape": [3], "dilations": [4], "pads": [1, 2]},
    {"kernel_shape": [4], "strides": [3], "auto_pad": "SAME_LOWER"},
]
IMAGE_WINDOWS: list[dict[str, Any]] = [
    {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [0, 1, 1, 0], "ceil_mode": 1},
    {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
    {"kernel_shape": [3, 2], "strides": [2, 1], "auto_pad": "SAME_UPPER"},
    {"kernel_shape": [3, 4], "strides": [1, 3], "auto_pad": "SAME_LOWER"},
    {"kernel_shape": [3, 3], "dilations": [2, 3], "pads": [2, 0, 1, 2], "ceil_mode": 1},
    {"kernel_shape": [1, 1], "strides": [3, 2], "auto_pad": "VALID"},
    {"kernel_shape": [13, 9]},
]
VOLUME_WINDOWS: list[dict[str, Any]] = [
    {"kernel_shape": [2, 3, 2], "strides": [2, 1, 2], "pads": [0, 1, 1, 1, 2, 0], "ceil_mode": 1},
    {"kernel_shape": [3, 3, 3], "strides": [2, 2, 2], "pads": [1, 1, 1, 1, 1, 1]},
    {"kernel_shape": [1, 2, 2], "strides": [1, 2, 2]},
    {"kernel_shape": [2, 2, 1], "dilations": [2, 1, 1], "pads": [1, 0, 0, 1, 1, 0]},
    {"kernel_shape": [3, 1, 2], "dilations": [2, 1, 3], "auto_pad": "SAME_UPPER"},
]
EVERY_RANK = pytest.mark.parametrize(
    ("shape", "windows"),
    [(SIGNAL, SIGNAL_WINDOWS), (IMAGE, IMAGE_WINDOWS), (VOLUME, VOLUME_WINDOWS)],
    ids=["signal", "image", "volume"],
)


def undilated(windows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """ONNX Runtime pads dilated windows of its own accord where auto_pad is asked for."""
    return [w for w in windows if "dilations" not in w or "auto_pad" not in w]


@EVERY_RANK
def test_max_pool(shape: tuple[int, ...], windows: list[dict[str, Any]]) -> None:
    kernels.check(pools("MaxPool", shape, undilated(windows)), BEST, tolerance=0)


@EVERY_RANK
@pytest.mark.parametrize("padded", [0, 1])
def test_average_pool(shape: tuple[int, ...], windows: list[dict[str, Any]], padded: int) -> None:
    options = [w | {"count_include_pad": padded} for w in undilated(windows)]
    kernels.check(pools("AveragePool", shape, options), BEST, tolerance=1e-6)


@EVERY_RANK
def test_lp_pool(shape: tuple[int, ...], windows: list[dict[str, Any]]) -> None:
    given = [w for w in undilated(windows) if "auto_pad" not in w]
    options = [w | {"p": power} for w in given[:2] for power in (1, 2, 3)]
    kernels.check(pools("LpPool", shape, options, 18), BEST)


@EVERY_RANK
def test_global_pools(shape: tuple[int, ...], windows: list[dict[str, Any]]) -> None:
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["a"]),
        helper.make_node("GlobalMaxPool", ["x"], ["m"]),
        helper.make_node("GlobalLpPool", ["x"], ["l"], p=3),
    ]
    kernels.check(inferred.network(nodes, {"x": shape}, "aml"), BEST)


@pytest.mark.parametrize("storage_order", [0, 1])
@EVERY_RANK
def test_places_of_the_largest(
    shape: tuple[int, ...], windows: list[dict[str, Any]], storage_order: int
) -> None:
    nodes, names = [], []
    for number, options in enumerate(undilated(windows)):
        outputs = [f"y{number}", f"i{number}"]
        names += outputs
        options = options | {"storage_order": storage_order}
        nodes.append(helper.make_node("MaxPool", ["x"], outputs, **options))
    kernels.check(inferred.network(nodes, {"x": shape}, names), BEST, tolerance=0)


def test_first_of_several_largest() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["y", "i"], kernel_shape=[3, 3], strides=[2, 2]),
    ]
    kernels.check(inferred.network(nodes, {"x": [2, 3, 9, 9]}, "yi"), BEST, tolerance=0)


@pytest.mark.parametrize("dtype", [TensorProto.INT8, TensorProto.UINT8])
def test_max_pool_of_bytes(dtype: int) -> None:
    window: dict[str, Any] = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2]}
    nodes = [helper.make_node("MaxPool", ["x"], ["y"], **window)]
    network = inferred.network(nodes, {"x": [1, 3, 9, 9]}, "y", types={"x": dtype})
    kernels.check(network, BEST)


def test_max_unpool() -> None:
    nodes = [
        helper.make_node("MaxPool", ["x"], ["p", "i"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Sigmoid", ["p"], ["s"]),
        helper.make_node("MaxUnpool", ["s", "i"], ["y"], kernel_shape=[2, 2], strides=[2, 2]),
    ]
    network = inferred.network(nodes, {"x": [2, 3, 8, 6]}, "y")
    kernels.check(network, BEST, tolerance=1e-6, generic=True)


def test_max_unpool_writes_nowhere_else_whatever_the_places_are() -> None:
    nodes = [helper.make_node("MaxUnpool", ["x", "i"], ["y"], kernel_shape=[2], strides=[2])]
    network = inferred.network(
        nodes, {"x": [1, 1, 4], "i": [1, 1, 4]}, "y", types={"i": TensorProto.INT64}
    )
    compiled = kernels.compile_network(network, load_target(BEST))
    places = np.array([[[3, 1 << 40, -(1 << 40), 100]]], np.int64)
    values = np.arange(1, 5, dtype=np.float32).reshape(1, 1, 4)
    (answer,) = kernels.run(compiled, [values, places])
    assert answer[0, 0, 3] == 1
    assert set(answer.ravel()) <= {0, 1, 2, 3, 4}


def test_max_unpool_to_a_given_shape() -> None:
    nodes = [
        helper.make_node("MaxPool", ["x"], ["p", "i"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("MaxUnpool", ["p", "i", "s"], ["y"], kernel_shape=[2, 2], strides=[2, 2]),
    ]
    network = networks.model(
        nodes, {"x": [2, 3, 7, 5]}, {"y": [2, 3, 7, 5]}, {"s": kernels.integers(2, 3, 7, 5)}
    )
    kernels.check(network, BEST, tolerance=0, generic=True)

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import onnx
import pytest

from edgepack.compiler.schedules.register_tile import split_evenly
from edgepack.targets import Target, load_target
from tests import kernels, networks
from tests.kernels import weights
from tests.networks import node

CORES = 4
BY_ROWS = "parallel_launch_point"
"""Threads are launched around the loop over panels, and share the one over rows inside."""


def target() -> Target:
    """Of a second cache level that holds all operands, so that the loop over panels is outside."""
    return replace(load_target(kernels.PROFILES[-1]), cores=CORES, l2_bytes=1 << 22)


def pointwise(rows: int, depth: int, columns: int) -> onnx.ModelProto:
    return networks.model(
        [node("MatMul", "x w", "y"), node("Relu", "y", "z")],
        {"x": [rows, depth]},
        {"z": [rows, columns]},
        {"w": weights(depth, columns)},
    )


def convolution(size: int, channels: int, columns: int) -> onnx.ModelProto:
    return networks.model(
        [node("Conv", "x w", "y", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])],
        {"x": [1, channels, size, size]},
        {"y": [1, columns, size // 2, size // 2]},
        {"w": weights(columns, channels, 3, 3)},
    )


def loops(network: onnx.ModelProto) -> str:
    _, module = kernels.lowered(network, target())
    return str(module.script())


@pytest.mark.usefixtures("small_kernels_shared")
@pytest.mark.parametrize("size", [(197, 24, 40), (96, 31, 200), (400, 16, 9)], ids=str)
def test_rows_of_a_product_are_shared_where_its_weights_are_small(size: Sequence[int]) -> None:
    rows, depth, columns = size
    network = pointwise(rows, depth, columns)
    assert BY_ROWS in loops(network)
    compiled, _ = kernels.check(network, target(), rule="matmul")
    kernels.check_threads(compiled, 2, 3, CORES)


@pytest.mark.usefixtures("small_kernels_shared")
def test_a_product_has_a_few_more_row_tiles_where_threads_then_share_them_evenly() -> None:
    for rows in range(49, 73):
        network = pointwise(rows, 24, 40)
        assert BY_ROWS in loops(network), rows
    compiled, _ = kernels.check(network, target(), rule="matmul")
    kernels.check_threads(compiled, 2, 3, CORES)


def test_the_number_of_row_tiles_is_what_the_registers_ask_for_or_a_little_more() -> None:
    assert split_evenly(125, 14) == [14] * 8 + [13]
    assert split_evenly(125, 14, 2) == [13] * 5 + [12] * 5
    assert split_evenly(36, 14, 2) == [9] * 4
    assert split_evenly(40, 8, 4) == [8] * 5  # eight would be far smaller ones
    assert split_evenly(3, 1, 4) == [1] * 3


@pytest.mark.usefixtures("small_kernels_shared")
@pytest.mark.parametrize("size", [16, 48])
def test_rows_of_a_convolution_are_shared_where_its_weights_are_small(size: int) -> None:
    network = convolution(size, 5, 40)
    assert BY_ROWS in loops(network)
    compiled, _ = kernels.check(network, target(), rule="convolution")
    kernels.check_threads(compiled, 2, 3, CORES)


def signal(
    length: int,
    taps: int,
    *,
    batch: int = 1,
    step: int = 1,
    apart: int = 1,
    group: int = 1,
    pads: Sequence[int] = (3, 2),
) -> onnx.ModelProto:
    """A convolution of 24 to 36 channels along one axis, of stride ``step`` and dilation ``apart``."""
    window = {"strides": [step], "dilations": [apart], "pads": list(pads), "group": group}
    result = (length + sum(pads) - apart * (taps - 1) - 1) // step + 1
    return networks.model(
        [node("Conv", "x w", "y", **window), node("Relu", "y", "z")],
        {"x": [batch, 24, length]},
        {"z": [batch, 36, result]},
        {"w": weights(36, 24 // group, taps)},
    )


SIGNALS = {
    "dilated": signal(133, 3, apart=4),
    "strided": signal(301, 7, step=2),
    "of two images": signal(97, 5, batch=2, step=2),
    "in groups": signal(160, 5, group=2, step=3),
    "wider than its padding": signal(150, 41, pads=(20, 20)),
    "of few columns": signal(23, 5, step=4),
}


@pytest.mark.usefixtures("small_kernels_shared")
@pytest.mark.parametrize("l2_bytes", [1 << 22, 1 << 12])
@pytest.mark.parametrize("name", SIGNALS)
def test_threads_share_the_tiles_of_a_signal(name: str, l2_bytes: int) -> None:
    chosen = replace(target(), l2_bytes=l2_bytes)
    _, module = kernels.lowered(SIGNALS[name], chosen)
    assert "T.parallel" in str(module.script())
    compiled, _ = kernels.check(SIGNALS[name], chosen, rule="convolution")
    kernels.check_threads(compiled, 2, 3, CORES)


def transposed_signal(
    length: int, taps: int, step: int, *, results: int = 36, group: int = 1, batch: int = 1
) -> onnx.ModelProto:
    """A transposed convolution of 24 channels along one axis, cut off by one result at each end."""
    window = {"strides": [step], "pads": [1, 1], "group": group}
    return networks.model(
        [node("ConvTranspose", "x w", "y", **window), node("Relu", "y", "z")],
        {"x": [batch, 24, length]},
        {"z": [batch, results, (length - 1) * step + taps - 2]},
        {"w": weights(24, results // group, taps)},
    )


TRANSPOSED_SIGNALS = {
    "phase by phase": transposed_signal(133, 4, 2),
    "in groups": transposed_signal(97, 5, 3, group=2),
    "channel by channel": transposed_signal(150, 4, 2, results=24, group=24),
    "phases in vectors": transposed_signal(301, 8, 4, results=1),
    "of two images": transposed_signal(61, 6, 2, results=3, batch=2),
    "of many phases": transposed_signal(40, 34, 17, results=8),
}


@pytest.mark.usefixtures("small_kernels_shared")
@pytest.mark.parametrize("l2_bytes", [1 << 22, 1 << 12])
@pytest.mark.parametrize("name", TRANSPOSED_SIGNALS)
def test_threads_share_the_tiles_of_a_transposed_convolution_of_a_signal(
    name: str, l2_bytes: int
) -> None:
    chosen = replace(target(), l2_bytes=l2_bytes)
    _, module = kernels.lowered(TRANSPOSED_SIGNALS[name], chosen)
    assert "T.parallel" in str(module.script())
    compiled, _ = kernels.check(TRANSPOSED_SIGNALS[name], chosen, rule="transposed")
    kernels.check_threads(compiled, 2, 3, CORES)


@pytest.mark.usefixtures("small_kernels_shared")
@pytest.mark.parametrize(
    "network",
    [
        pytest.param(pointwise(49, 160, 960), id="weights larger than the image"),
        pytest.param(pointwise(10, 24, 64), id="too few rows to share evenly"),
        pytest.param(convolution(14, 8, 512), id="seven rows"),
    ],
)
def test_panels_are_shared_otherwise(network: onnx.ModelProto) -> None:
    assert BY_ROWS not in (written := loops(network))
    assert "T.parallel" in written
    compiled, _ = kernels.check(network, target())
    kernels.check_threads(compiled, 2, 3, CORES)


def test_tensors_that_only_move_are_shared_from_a_few_microseconds_on() -> None:
    for side, shared in ((64, False), (128, True)):
        network = networks.model(
            [node("Transpose", "x", "y", perm=[1, 0])],
            {"x": [side, side]},
            {"y": [side, side]},
        )
        assert ("T.parallel" in loops(network)) == shared

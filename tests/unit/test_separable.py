"""Depthwise and pointwise convolutions that become one kernel, and those that must not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgepack.targets import Target, load_target
from tests import kernels, networks
from tests.networks import node


def small_cache(profile: str) -> Target:
    """The profile with so little cache that the network's tensors do not fit it."""
    return replace(load_target(profile), l1_bytes=16 << 10, l2_bytes=16 << 10)


def separable(
    stride: int,
    *,
    shared: bool = False,
    channels: int = 20,
    width: int = 31,
    kernel: int = 3,
    dilation: int = 1,
    batch: int = 1,
) -> onnx.ModelProto:
    """1x1, depthwise, 1x1 with a residual; ``shared``: what is before the last has a second reader."""
    out = (width - 1) // stride + 1
    around = (kernel - 1) * dilation
    nodes = [
        helper.make_node("Conv", ["x", "expand"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node(
            "Conv",
            ["b", "depthwise", "bias"],
            ["c"],
            group=channels,
            pads=[around // 2] * 2 + [around - around // 2] * 2,
            strides=[stride] * 2,
            dilations=[dilation] * 2,
        ),
        helper.make_node("HardSwish", ["c"], ["d"]),
        helper.make_node("Conv", ["d", "project"], ["e"]),
        helper.make_node("Conv", ["x", "skip"], ["s"], strides=[stride] * 2),
        helper.make_node("Add", ["e", "s"], ["f" if shared else "y"]),
    ]
    if shared:
        nodes += [
            helper.make_node("ReduceMean", ["d"], ["m"], axes=[1], keepdims=1),
            helper.make_node("Mul", ["f", "m"], ["y"]),
        ]
    shapes = {
        "expand": (channels, 5, 1, 1),
        "depthwise": (channels, 1, kernel, kernel),
        "bias": (channels,),
        "project": (7, channels, 1, 1),
        "skip": (7, 5, 1, 1),
    }
    graph = helper.make_graph(
        nodes,
        "separable",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 5, width, width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 7, out, out])],
        [numpy_helper.from_array(kernels.weights(*shape), name) for name, shape in shapes.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def largest_tensor(compiled: kernels.Kernels) -> int:
    """Bytes, of what the plan has a place for."""
    return max(slot.spec.nbytes for slot in compiled.plan.slots)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("profile", kernels.PROFILES)
def test_a_pair_that_leaves_the_cache_is_one_kernel(profile: str, stride: int) -> None:
    # What is before the pair is not twice as large as this cache.
    target = replace(small_cache(profile), l2_bytes=39 << 10)
    compiled, _ = kernels.check(separable(stride), target)
    assert "depthwise+matmul" in compiled.rules_called
    assert "matmul+depthwise" not in compiled.rules_called
    assert largest_tensor(compiled) == 4 * 20 * 31 * 31


WINDOWS: list[dict[str, Any]] = [
    dict(stride=1, kernel=3),
    dict(stride=2, kernel=3),
    dict(stride=1, kernel=5),
    dict(stride=2, kernel=2),
    dict(stride=3, kernel=2),
    dict(stride=4, kernel=3, width=48),
    dict(stride=1, kernel=3, dilation=2),
    dict(stride=2, kernel=3, dilation=3, width=40, channels=12),
    dict(stride=1, kernel=3, width=33, channels=19),
    dict(stride=1, kernel=3, width=21, batch=2),
    dict(stride=2, kernel=5, batch=2),
]


@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("profile", kernels.EXTREMES)
def test_of_what_a_depthwise_convolution_reads_only_the_rows_of_a_window_are_kept(
    profile: str, window: dict[str, Any]
) -> None:
    target = replace(small_cache(profile), l2_bytes=32 << 10, cores=1)
    compiled, _ = kernels.check(separable(**window), target)
    assert "matmul+depthwise" in compiled.rules_called
    assert largest_tensor(compiled) < 4 * 12 * 31 * 31


@pytest.mark.usefixtures("small_kernels_shared")
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_every_thread_has_a_window_of_its_own(window: dict[str, Any]) -> None:
    target = replace(small_cache(kernels.PROFILES[-1]), l2_bytes=32 << 10, cores=4)
    compiled, _ = kernels.check(separable(**window), target)
    assert "matmul+depthwise" in compiled.rules_called
    kernels.check_threads(compiled, 2, 3, 4)


def test_all_three_are_one_kernel_where_both_tensors_leave_the_cache() -> None:
    compiled, _ = kernels.check(separable(1), small_cache(kernels.PROFILES[-1]))
    assert len([rule for rule in compiled.rules_called if "depthwise" in rule]) == 1
    assert compiled.rules_called.count("matmul") == 1  # the one beside them
    assert largest_tensor(compiled) < 4 * 12 * 31 * 31


@pytest.mark.parametrize("epilogue", ["", " b"], ids=["alone", "with a bias"])
def test_of_a_long_row_of_them_each_depthwise_convolution_joins_the_next_pointwise_one(
    epilogue: str,
) -> None:
    nodes = []
    shapes: dict[str, tuple[int, ...]] = {"b": (20,)}
    for i in range(3):
        nodes += [
            node("Conv", f"x{i} d{i}{epilogue}", f"m{i}", group=20, pads=[1] * 4),
            node("Conv", f"m{i} p{i}{epilogue}", f"x{i + 1}"),
        ]
        shapes |= {f"d{i}": (20, 1, 3, 3), f"p{i}": (20, 20, 1, 1)}
    network = networks.model(
        nodes,
        {"x0": [1, 20, 31, 31]},
        {"x3": [1, 20, 31, 31]},
        {name: kernels.weights(*shape) for name, shape in shapes.items()},
    )
    compiled, _ = kernels.check(network, small_cache(kernels.PROFILES[-1]))
    assert [rule for rule in compiled.rules_called if rule != "elementwise"] == [
        "depthwise+matmul"
    ] * 3


def test_a_row_longer_than_the_first_cache_level_stays_in_the_second_one() -> None:
    network, row = separable(1, width=131), 4 * 20 * 131
    target = replace(small_cache(kernels.PROFILES[-1]), l2_bytes=8 * row)
    assert row > target.l1_bytes // 2
    compiled, _ = kernels.check(network, target)
    assert [rule for rule in compiled.rules_called if "depthwise" in rule] == ["matmul+depthwise"]
    assert largest_tensor(compiled) < 131 * row
    apart, _ = kernels.check(network, replace(target, l2_bytes=8 * row - 1))
    assert "depthwise+matmul" not in apart.rules_called
    assert largest_tensor(apart) == 131 * row


def test_kernels_of_several_results_are_passed_over() -> None:
    network = networks.model(
        [
            node("Split", "x sizes", "a b", axis=1),
            node("Conv", "a d", "m", group=20, pads=[1] * 4),
            node("Conv", "m p", "c"),
            node("Mul", "c b", "y"),
        ],
        {"x": [1, 40, 31, 31]},
        {"y": [1, 20, 31, 31]},
        {
            "sizes": np.array([20, 20]),
            "d": kernels.weights(20, 1, 3, 3),
            "p": kernels.weights(20, 20, 1, 1),
        },
    )
    compiled, _ = kernels.check(network, small_cache(kernels.PROFILES[-1]))
    assert "depthwise+matmul" in compiled.rules_called


@pytest.mark.usefixtures("small_kernels_shared")
def test_with_threads_the_bytes_are_the_same() -> None:
    target = replace(small_cache(kernels.PROFILES[-1]), cores=4)
    for network in (separable(1), separable(2)):
        compiled = kernels.compile_network(network, target)
        kernels.check_threads(compiled, 3)


def test_a_middle_that_others_read_stays_in_memory() -> None:
    compiled, _ = kernels.check(separable(1, shared=True), small_cache(kernels.PROFILES[-1]))
    assert "depthwise+matmul" not in compiled.rules_called


def test_a_pair_that_fits_the_cache_stays_apart() -> None:
    compiled, _ = kernels.check(separable(1), kernels.PROFILES[-1])
    assert "depthwise+matmul" not in compiled.rules_called
    assert "depthwise" in compiled.rules_called

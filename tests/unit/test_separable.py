"""Depthwise and pointwise convolutions that become one kernel, and those that must not."""

from __future__ import annotations

from dataclasses import replace

import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgepack.compiler import schedules
from edgepack.targets import Target, load_target
from tests import kernels


def small_cache(profile: str) -> Target:
    """The profile with so little cache that the network's tensors do not fit it."""
    return replace(load_target(profile), l1_bytes=16 << 10, l2_bytes=16 << 10)


def separable(
    stride: int, *, shared: bool = False, channels: int = 20, width: int = 31
) -> onnx.ModelProto:
    """1x1, 3x3 depthwise, 1x1 with a residual; ``shared``: the middle has a second reader."""
    out = (width - 1) // stride + 1
    nodes = [
        helper.make_node("Conv", ["x", "expand"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node(
            "Conv",
            ["b", "depthwise", "bias"],
            ["c"],
            group=channels,
            pads=[1] * 4,
            strides=[stride] * 2,
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
        "depthwise": (channels, 1, 3, 3),
        "bias": (channels,),
        "project": (7, channels, 1, 1),
        "skip": (7, 5, 1, 1),
    }
    graph = helper.make_graph(
        nodes,
        "separable",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 5, width, width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 7, out, out])],
        [numpy_helper.from_array(kernels.weights(*shape), name) for name, shape in shapes.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("profile", kernels.PROFILES)
def test_a_pair_that_leaves_the_cache_is_one_kernel(profile: str, stride: int) -> None:
    compiled, _ = kernels.check(separable(stride), small_cache(profile))
    assert "depthwise+matmul" in compiled.rules_called
    rows = max(slot.spec.nbytes for slot in compiled.plan.slots)
    assert rows <= 4 * 20 * 31 * 31


def test_with_threads_the_bytes_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedules, "_SHARED_OPERATIONS", 0)  # small kernels too
    target = replace(small_cache(kernels.PROFILES[-1]), cores=4)
    compiled = kernels.compile_network(separable(1), target)
    kernels.check_threads(compiled, 3)


def test_a_middle_that_others_read_stays_in_memory() -> None:
    compiled, _ = kernels.check(separable(1, shared=True), small_cache(kernels.PROFILES[-1]))
    assert "depthwise+matmul" not in compiled.rules_called


def test_a_pair_that_fits_the_cache_stays_apart() -> None:
    compiled, _ = kernels.check(separable(1), kernels.PROFILES[-1])
    assert "depthwise+matmul" not in compiled.rules_called
    assert "depthwise" in compiled.rules_called

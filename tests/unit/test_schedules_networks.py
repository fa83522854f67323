from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import onnx
import pytest

from edgepack.compiler.plan import make_plan
from edgepack.targets import load_target
from tests import kernels, networks
from tests.blocks import attention, every_rule, squeeze_and_excite
from tests.kernels import integers, weights
from tests.networks import node

BEST = kernels.PROFILES[-1]


@pytest.mark.parametrize("profile", kernels.EXTREMES)
@pytest.mark.parametrize("sizes", [(7, 12, 3), (1, 8, 2), (17, 20, 4, 2), (33, 64, 1)], ids=str)
def test_attention(sizes: tuple[int, ...], profile: str) -> None:
    kernels.check(attention(*sizes), profile, rule="matmul", tolerance=2e-5)


@pytest.mark.parametrize("profile", kernels.EXTREMES)
@pytest.mark.parametrize("sizes", [(13, 7, 9), (33, 13, 5, 2)], ids=str)
def test_squeeze_and_excite(sizes: tuple[int, ...], profile: str) -> None:
    made, _ = kernels.check(squeeze_and_excite(*sizes), profile, rule="depthwise")
    assert {"convolution", "matmul"} <= set(made.rules_called)


@pytest.mark.parametrize(
    ("kind", "sizes", "how"),
    [
        ("LSTM", (7, 5, 3, 1), {}),
        ("LSTM", (3, 1, 2, 2), {}),
        ("LSTM", (5, 3, 3, 1), {"direction": "bidirectional"}),
        ("LSTM", (5, 3, 3, 1), {"direction": "reverse"}),
        ("GRU", (7, 5, 3, 2), {"linear_before_reset": 1}),
        ("GRU", (3, 2, 3, 1), {"linear_before_reset": 0}),
        ("RNN", (5, 3, 3, 1), {}),
    ],
)
def test_recurrence(kind: str, sizes: tuple[int, int, int, int], how: dict[str, Any]) -> None:
    hidden, width, length, batch = sizes
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind]
    ways = 2 if how.get("direction") == "bidirectional" else 1
    outputs: dict[str, Sequence[int | str]] = {
        "y": [length, ways, batch, hidden],
        "h": [ways, batch, hidden],
    }
    if kind == "LSTM":
        outputs["c"] = [ways, batch, hidden]
    network = networks.model(
        [node(kind, "x w r b", " ".join(outputs), hidden_size=hidden, **how)],
        {"x": [length, batch, width]},
        outputs,
        {
            "w": weights(ways, gates * hidden, width) * 2,
            "r": weights(ways, gates * hidden, hidden) * 2,
            "b": weights(ways, 2 * gates * hidden),
        },
    )
    kernels.check(network, BEST)


def convolutions_of_which_all_are_outputs() -> onnx.ModelProto:
    nodes = [node("Conv", "x w", "c"), node("Relu", "c", "r"), node("Conv", "r v", "y")]
    return networks.model(
        nodes,
        {"x": [1, 3, 7, 7]},
        {"c": [1, 5, 5, 5], "r": [1, 5, 5, 5], "y": [1, 2, 3, 3]},
        {"w": weights(5, 3, 3, 3), "v": weights(2, 5, 3, 3)},
    )


OUTPUTS = {
    "intermediate values": convolutions_of_which_all_are_outputs(),
    "the input itself, and one value twice": networks.model(
        [node("Identity", "x", "y"), node("Relu", "x", "z"), node("Identity", "z", "q")],
        {"x": [3, 5]},
        {key: [3, 5] for key in "yzq"},
    ),
    "views of another": networks.model(
        [node("Relu", "x", "r"), node("Reshape", "r s", "y"), node("Reshape", "r t", "z")],
        {"x": [3, 4]},
        {"r": [3, 4], "y": [2, 6], "z": [12]},
        {"s": integers(2, 6), "t": integers(-1)},
    ),
    "a constant": networks.model(
        [node("Identity", "w", "y"), node("Relu", "x", "z")],
        {"x": [3]},
        {"y": [5], "z": [3]},
        {"w": weights(5)},
    ),
    "a scalar": networks.model(
        [node("Mul", "x x", "m"), node("Exp", "m", "y")], {"x": []}, {"y": []}
    ),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_outputs_that_are(name: str) -> None:
    kernels.check(OUTPUTS[name], BEST)


@pytest.mark.usefixtures("small_kernels_shared")
@pytest.mark.parametrize("profile", kernels.PROFILES)
def test_threads_give_the_same_bytes_as_one(profile: str) -> None:
    made, _ = kernels.check(every_rule(), profile, tolerance=1e-4)
    rules = " ".join(made.rules_called)
    for rule in ("winograd", "depthwise", "transposed", "convolution", "matmul", "reduction"):
        assert rule in rules
    kernels.check_threads(made, 2, 4)


def test_a_profile_of_one_core_has_no_parallel_loop_and_gives_the_same_numbers() -> None:
    target = replace(load_target(BEST), cores=1)
    _, module = kernels.lowered(every_rule(), target)
    assert "T.parallel" not in module.script()
    _, module = kernels.lowered(every_rule(), load_target(BEST))
    assert "T.parallel" in module.script()
    kernels.check(every_rule(), target, tolerance=1e-4)


@pytest.mark.parametrize(
    "network", [every_rule(), attention(7, 12, 3)], ids=["every rule", "attention"]
)
def test_lowering_twice_gives_the_same_kernels_and_the_same_plan(network: onnx.ModelProto) -> None:
    from tvm_ffi import structural_equal

    made = []
    for _ in range(2):
        imported, module = kernels.lowered(network, load_target(BEST))
        made.append((module, make_plan(module, imported.inputs, imported.outputs)))
    (first, plan), (second, again) = made
    assert structural_equal(first, second)
    assert plan == again


@pytest.mark.parametrize("beside", [-1, 0])
def test_a_byte_written_outside_is_found(beside: int) -> None:
    region = kernels.Guarded(100)
    assert region.bytes.ctypes.data % 64 == 0
    region.bytes[:] = 0
    assert region.is_intact()
    end = region.bytes.ctypes.data - region.whole.ctypes.data + (100 if beside == 0 else beside)
    region.whole[end] = 0
    assert not region.is_intact()

"""Attention that is computed block by block, and such that must not be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from edgepack.compiler import attention, patterns
from edgepack.targets import Target, load_target
from tests import blocks, kernels, networks, relax_graphs
from tests.networks import node

ROWS, KEYS, WIDTH = 40, 48, 8


def small_cache(profile: str, kilobytes: int) -> Target:
    return replace(load_target(profile), l2_bytes=kilobytes << 10)


def network(
    heads: Sequence[int],
    between: Sequence[onnx.NodeProto],
    weights: Mapping[str, Any] | None = None,
    *,
    masks: Mapping[str, Sequence[int]] | None = None,
    outputs: Sequence[str] = (),
) -> onnx.ModelProto:
    """softmax(q @ k, ...) @ v with ``between`` from "s" to "p"; [..., 40, 48] scores."""
    inputs = {"q": [*heads, ROWS, WIDTH], "k": [*heads, WIDTH, KEYS], "v": [*heads, KEYS, WIDTH]}
    nodes = [node("MatMul", "q k", "s"), *between, node("MatMul", "p v", "y")]
    results = {"y": [*heads, ROWS, WIDTH]} | {name: [*heads, ROWS, KEYS] for name in outputs}
    types = {name: TensorProto.BOOL for name in masks or {}}
    return networks.model(nodes, inputs | dict(masks or {}), results, weights, types=types)


def in_blocks(made: onnx.ModelProto, kilobytes: int) -> Any:
    module = patterns.recognise(relax_graphs.relax_of(made))
    return attention.in_blocks(module, small_cache("host", kilobytes))


PLAIN = [node("Softmax", "s", "p", axis=-1)]
SCALED = [node("Mul", "s scale", "t"), node("Add", "t mask", "u"), node("Softmax", "u", "p")]
SCALE: dict[str, Any] = {"scale": np.float32(0.3)}
CAUSAL = np.triu(np.full((ROWS, KEYS), -1e4, np.float32), 1)
CHOSEN = [node("Where", "m s low", "t"), node("Softmax", "t", "p")]
LOW: dict[str, Any] = {"low": np.float32(-1e4)}
EACH = [(1, 1)] * 6
ROWWISE = [(1, 2, 14), (1, 2, 13), (1, 2, 13)] * 2
BIAS = kernels.weights(6, ROWS, KEYS)


@pytest.mark.parametrize(
    ("made", "kilobytes", "sizes"),
    [
        # A head's scores take 7.5 KiB. Neither batch axis of the last four has enough for blocks of half
        # the cache: one is cut, and rows.
        (network([1, 6], PLAIN), 22, EACH),
        (network([6], PLAIN), 22, [(1,)] * 6),
        (network([1, 6], SCALED, SCALE | {"mask": BIAS[None]}), 22, EACH),
        (network([1, 6], SCALED, SCALE | {"mask": CAUSAL}), 22, EACH),
        (network([1, 6], CHOSEN, LOW, masks={"m": [1, 1, ROWS, KEYS]}), 22, EACH),
        (network([100], PLAIN), 4, [(2,)] * 50),  # not a hundred blocks, though one head fills it
        (network([2, 2], PLAIN), 14, ROWWISE),
        (network([2, 2], SCALED, SCALE | {"mask": CAUSAL}), 14, ROWWISE),
        (network([2, 2], SCALED, SCALE | {"mask": BIAS[:2, :1]}), 14, ROWWISE),
        (network([2, 2], CHOSEN, LOW, masks={"m": [2, 1, ROWS, 1]}), 14, ROWWISE),
    ],
)
def test_scores_that_leave_the_cache_are_made_in_blocks(
    made: onnx.ModelProto, kilobytes: int, sizes: list[tuple[int, ...]]
) -> None:
    module = in_blocks(made, kilobytes)
    assert [scores[: len(sizes[0])] for scores in softmaxes(module)] == sizes
    assert relax_graphs.operators(module)["concat"] == (3 if sizes is ROWWISE else 1)
    relax_graphs.assert_same_results(module, made)


def softmaxes(module: Any) -> list[tuple[int, ...]]:
    """The shapes of all of them."""
    from tvm import ir

    values = [b.value for block in module["main"].body.blocks for b in block.bindings]
    calls = [value for value in values if isinstance(value, ir.Call)]
    return [
        tuple(int(extent) for extent in call.ty.shape)
        for call in calls
        if getattr(call.op, "name", "") == "relax.nn.softmax"
    ]


TWICE = [node("Softmax", "s", "t"), node("Softmax", "t", "p")]
ACROSS = [node("Softmax", "s", "p", axis=-2)]
NO_SOFTMAX = [node("Mul", "s scale", "p")]
OWN_SQUARE = [node("Mul", "s s", "t"), node("Softmax", "t", "p")]


@pytest.mark.parametrize(
    ("made", "kilobytes"),
    [
        (network([1, 6], PLAIN), 23),
        (network([1, 6], PLAIN, outputs=["p"]), 22),
        (network([1, 6], SCALED, SCALE | {"mask": CAUSAL}, outputs=["t"]), 22),
        (network([1, 6], TWICE), 22),
        (network([1, 6], ACROSS), 22),
        (network([1, 6], NO_SOFTMAX, SCALE), 22),
        (network([1, 6], OWN_SQUARE), 22),
    ],
    ids=["fits", "weights read", "scores read", "twice", "across", "no softmax", "own square"],
)
def test_others_are_left_as_they_are(made: onnx.ModelProto, kilobytes: int) -> None:
    module = in_blocks(made, kilobytes)
    assert relax_graphs.operators(module)["concat"] == 0
    assert relax_graphs.operators(module)["matmul"] == 2


@pytest.mark.parametrize("profile", kernels.PROFILES)
@pytest.mark.parametrize(("heads", "kilobytes"), [(6, 8), (1, 4)])
def test_a_network_has_less_memory_and_the_same_answers(
    profile: str, heads: int, kilobytes: int
) -> None:
    made = blocks.attention(64, 24, heads)
    compiled, _ = kernels.check(made, small_cache(profile, kilobytes))
    whole, _ = kernels.check(made, profile)
    scores = 4 * heads * 64 * 64
    assert whole.plan.arena_bytes - compiled.plan.arena_bytes > scores // 2
    largest = max(slot.spec.nbytes for slot in compiled.plan.slots if slot.spec.shape[-1:] == (64,))
    assert largest <= scores // 2


@pytest.mark.usefixtures("small_kernels_shared")
def test_with_threads_the_bytes_are_the_same() -> None:
    target = replace(small_cache(kernels.PROFILES[-1], 8), cores=4)
    compiled = kernels.compile_network(blocks.attention(64, 24, 2), target)
    kernels.check_threads(compiled, 3)

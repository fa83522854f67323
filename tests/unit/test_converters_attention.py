from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from edgepack.targets import load_target
from tests import inferred, kernels

BEST = kernels.PROFILES[-1]
B, H, S, T, D, V = 2, 4, 3, 5, 8, 6
INPUTS = {"q": (B, H, S, D), "k": (B, H, T, D), "v": (B, H, T, V)}
SHARED = {"q": (B, H, S, D), "k": (B, 2, T, D), "v": (B, 2, T, V)}


def attention(
    inputs: Mapping[str, Sequence[int]],
    *,
    outputs: str = "y",
    opset: int = 24,
    types: Mapping[str, int] | None = None,
    **attributes: Any,
) -> onnx.ModelProto:
    """Inputs by the names q, k, v, m (mask), pk and pv (past), n (lengths)."""
    order = ["q", "k", "v", "m", "pk", "pv", "n"]
    names = [name if name in inputs else "" for name in order]
    while not names[-1]:
        names.pop()
    every = {"y": "y", "k": "present_key", "v": "present_value", "p": "scores"}
    given = [every[name] if name in outputs else "" for name in every]
    while not given[-1]:
        given.pop()
    node = helper.make_node("Attention", names, given, **attributes)
    ordered = {name: inputs[name] for name in order if name in inputs}
    return inferred.network([node], ordered, [g for g in given if g], opset=opset, types=types)


def same_as_reference(network: onnx.ModelProto, given: dict[str, np.ndarray]) -> list[np.ndarray]:
    compiled = kernels.compile_network(network, load_target(BEST))
    inputs = kernels.random_inputs(compiled.imported, 1)
    names = [spec.name for spec in compiled.imported.inputs]
    fed = dict(zip(names, inputs, strict=True)) | given
    answers = kernels.run(compiled, [fed[name] for name in names])
    wanted = ReferenceEvaluator(network).run(None, fed)
    for ours, theirs in zip(answers, wanted, strict=True):
        assert kernels.error_of(ours, np.asarray(theirs, ours.dtype)) <= 1e-5
    return answers


@pytest.mark.parametrize("inputs", [INPUTS, SHARED], ids=["own", "shared"])
@pytest.mark.parametrize("causal", [0, 1])
def test_heads_with_keys_of_their_own_or_shared(inputs: Any, causal: int) -> None:
    kernels.check(attention(inputs, is_causal=causal), BEST)
    kernels.check(attention(inputs, is_causal=causal, scale=0.3, softcap=2.0), BEST)


@pytest.mark.parametrize("shared", [1, 2])
def test_heads_beside_each_other(shared: int) -> None:
    heads = H // shared
    inputs = {"q": (B, S, H * D), "k": (B, T, heads * D), "v": (B, T, heads * V)}
    network = attention(inputs, q_num_heads=H, kv_num_heads=heads)
    kernels.check(network, BEST)


@pytest.mark.parametrize("shape", [(S, T), (1, T), (H, S, T), (B, 1, S, T), (B, H, S, T), (T,)])
@pytest.mark.parametrize("kind", [TensorProto.BOOL, TensorProto.FLOAT])
def test_masks(shape: tuple[int, ...], kind: int) -> None:
    causal = (len(shape) + (kind == TensorProto.BOOL)) % 2
    network = attention({**INPUTS, "m": shape}, types={"m": kind}, is_causal=causal)
    generator = np.random.default_rng(3)
    mask: np.ndarray = generator.standard_normal(shape).astype(np.float32)
    mask = mask > -0.5 if kind == TensorProto.BOOL else mask
    if shape in ((T,), (1, T)) and causal:  # which ONNX's own evaluator does not spread
        compiled = kernels.compile_network(network, load_target(BEST))
        inputs = kernels.random_inputs(compiled.imported, 1)[:3]
        (answer,) = kernels.run(compiled, [*inputs, mask])
        spread = attention({**INPUTS, "m": (S, T)}, types={"m": kind}, is_causal=causal)
        fed = dict(zip("qkv", inputs, strict=True)) | {"m": np.broadcast_to(mask, (S, T))}
        (wanted,) = ReferenceEvaluator(spread).run(None, fed)
        assert kernels.error_of(answer, np.asarray(wanted)) <= 1e-5
        return
    same_as_reference(network, {"m": mask})


@pytest.mark.parametrize("kind", [TensorProto.BOOL, TensorProto.FLOAT])
def test_keys_beyond_a_short_mask_are_hidden(kind: int) -> None:
    network = attention({**INPUTS, "m": (S, T - 2)}, types={"m": kind})
    mask = np.ones((S, T - 2), bool)
    same_as_reference(network, {"m": mask if kind == TensorProto.BOOL else mask * np.float32(0.5)})


def test_query_that_sees_nothing_gives_zero() -> None:
    network = attention({**INPUTS, "m": (S, T)}, types={"m": TensorProto.BOOL}, outputs="yp")
    mask = np.ones((S, T), bool)
    mask[1] = False
    answer, _ = same_as_reference(network, {"m": mask})
    assert not answer[:, :, 1].any()
    lowest = np.full((S, T), np.finfo(np.float32).min)  # which hides nothing from the others
    (answer,) = same_as_reference(attention({**INPUTS, "m": (S, T)}), {"m": lowest})
    assert answer.all()


@pytest.mark.parametrize(
    ("mode", "softcap"), [(0, 1.5), (1, 1.5), (2, 1.5), (3, 1.5), (1, 0.0), (2, 0.0)]
)
def test_what_the_fourth_output_shows(mode: int, softcap: float) -> None:
    network = attention(
        {**INPUTS, "m": (S, T)}, outputs="yp", qk_matmul_output_mode=mode, softcap=softcap
    )
    mask = np.random.default_rng(3).standard_normal((S, T)).astype(np.float32)
    mask[0, 1:3] = -np.inf
    compiled = kernels.compile_network(network, load_target(BEST))
    inputs = [*kernels.random_inputs(compiled.imported, 1)[:3], mask]
    wanted = kernels.expected(network, list("qkvm"), inputs)
    for ours, theirs in zip(kernels.run(compiled, inputs), wanted, strict=True):
        assert kernels.error_of(ours, theirs) <= 1e-5


@pytest.mark.parametrize("causal", [0, 1])
@pytest.mark.parametrize("inputs", [INPUTS, SHARED], ids=["own", "shared"])
def test_past_and_present(inputs: Any, causal: int) -> None:
    heads = inputs["k"][1]
    past = {"pk": (B, heads, 7, D), "pv": (B, heads, 7, V)}
    network = attention({**inputs, **past}, outputs="ykv", is_causal=causal)
    kernels.check(network, BEST)


@pytest.mark.parametrize("causal", [0, 1])
def test_lengths_of_the_cache(causal: int) -> None:
    network = attention({**INPUTS, "n": (B,)}, types={"n": TensorProto.INT64}, is_causal=causal)
    for lengths in ([5, 2], [1, 4], [3, 3]):
        same_as_reference(network, {"n": np.array(lengths, np.int64)})


@pytest.mark.parametrize(("left", "right"), [(-1, 1), (0, -1), (2, 0), (1, 1)])
@pytest.mark.parametrize("past", [0, 4])
def test_windows(left: int, right: int, past: int) -> None:
    inputs: dict[str, tuple[int, ...]] = dict(INPUTS)
    if past:
        inputs |= {"pk": (B, H, past, D), "pv": (B, H, past, V)}
    windows: dict[str, Any] = {"left_window_size": left, "right_window_size": right}
    same_as_reference(attention(inputs, opset=25, **windows), {})


def test_windows_that_leave_queries_without_keys() -> None:
    inputs = {"q": (B, H, 6, D), "k": (B, H, 3, D), "v": (B, H, 3, V)}
    network = attention(inputs, opset=25, left_window_size=1, is_causal=1)
    (answer,) = same_as_reference(network, {})
    assert not answer[:, :, 4:].any()


def test_half_precision() -> None:
    types = dict.fromkeys("qkv", TensorProto.FLOAT16)
    network = attention(INPUTS, types=types, is_causal=1)
    compiled = kernels.compile_network(network, load_target(BEST))
    inputs = kernels.random_inputs(compiled.imported, 1)
    (answer,) = kernels.run(compiled, inputs)
    single = attention(INPUTS, is_causal=1)
    wide = [array.astype(np.float32) for array in inputs]
    (wanted,) = kernels.expected(single, list("qkv"), wide)
    assert answer.dtype == np.float16
    assert kernels.error_of(answer.astype(np.float32), wanted) <= 2e-3


@pytest.mark.parametrize(("interleaved", "turned"), [(0, 0), (1, 0), (0, 4), (1, 4)])
@pytest.mark.parametrize("rank", [3, 4])
def test_rotary_embedding(interleaved: int, turned: int, rank: int) -> None:
    positions = (rank == 4) != (turned == 4)
    pairs = (turned or D) // 2
    table = (50, pairs) if positions else (B, S, pairs)
    data = (B, H, S, D) if rank == 4 else (B, S, H * D)
    inputs = {"x": data, "c": table, "s": table} | ({"p": (B, S)} if positions else {})
    attributes: dict[str, Any] = {"interleaved": interleaved, "rotary_embedding_dim": turned}
    if rank == 3:
        attributes["num_heads"] = H
    node = helper.make_node("RotaryEmbedding", list(inputs), ["y"], **attributes)
    types = {"p": TensorProto.INT64}
    network = inferred.network([node], inputs, "y", opset=23, types=types)
    kernels.check(network, BEST)


def test_positions_beyond_the_table_read_nothing_else() -> None:
    inputs = {"x": (1, 1, 4, 4), "c": (5, 2), "s": (5, 2), "p": (1, 4)}
    node = helper.make_node("RotaryEmbedding", list(inputs), ["y"])
    types = {"p": TensorProto.INT64}
    network = inferred.network([node], inputs, "y", opset=23, types=types)
    compiled = kernels.compile_network(network, load_target(BEST))
    x, c, s, _ = kernels.random_inputs(compiled.imported, 1)
    places = np.array([[-1, 5, 1 << 40, -(1 << 40)]], np.int64)
    (answer,) = kernels.run(compiled, [x, c, s, places])
    (wanted,) = kernels.run(compiled, [x, c, s, np.array([[0, 4, 4, 0]], np.int64)])
    assert np.array_equal(answer, wanted)


@pytest.mark.parametrize("operator", ["Swish", "SwiGLU"])
@pytest.mark.parametrize(("alpha", "kind"), [(1.0, TensorProto.FLOAT), (1.7, TensorProto.FLOAT16)])
def test_gated_activations(operator: str, alpha: float, kind: int) -> None:
    names = ["a"] if operator == "Swish" else ["a", "b"]
    node = helper.make_node(operator, names, ["y"], alpha=alpha)
    inputs, types = dict.fromkeys(names, (3, 17)), dict.fromkeys(names, kind)
    network = inferred.network([node], inputs, "y", opset=28, types=types)
    compiled = kernels.compile_network(network, load_target(BEST))
    given = kernels.random_inputs(compiled.imported, 1)
    (answer,) = kernels.run(compiled, given)
    a, *others = (array.astype(np.float64) for array in given)
    wanted = a / (1 + np.exp(-alpha * a)) * (others[0] if others else 1)
    tolerance = 1e-6 if kind == TensorProto.FLOAT else 2e-3
    assert np.abs(answer - wanted).max() <= tolerance * np.abs(wanted).max()


RULES = ["linear", "gated", "delta", "gated_delta"]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("shared", "each"), [(1, False), (3, True)])
def test_linear_attention(rule: str, shared: int, each: bool) -> None:
    heads, steps = 2, 7
    queries = heads * shared
    inputs: dict[str, tuple[int, ...]] = {
        "q": (B, steps, queries * D),
        "k": (B, steps, heads * D),
        "v": (B, steps, heads * V),
    }
    names = ["q", "k", "v", "s"]
    inputs["s"] = (B, heads, D, V)
    if rule.startswith("gated"):
        inputs["d"] = (B, steps, heads * D if each else heads)
        names.append("d")
    if rule.endswith("delta"):
        inputs["b"] = (B, steps, heads if each else 1)
        names += [""] * (5 - len(names)) + ["b"]
    node = helper.make_node(
        "LinearAttention",
        names,
        ["y", "z"],
        q_num_heads=queries,
        kv_num_heads=heads,
        update_rule=rule,
    )
    network = inferred.network([node], inputs, "yz", opset=27)
    given = {
        name: 0.3 * np.random.default_rng(number).standard_normal(shape).astype(np.float32)
        for number, (name, shape) in enumerate(inputs.items())
    }
    same_as_reference(network, given)


@pytest.mark.parametrize(
    ("activation", "length", "past"),
    [("none", 1, True), ("none", 1, False), ("silu", 9, True), ("silu", 9, False)],
)
def test_causal_convolution(activation: str, length: int, past: bool) -> None:
    inputs = {"x": (B, 6, length), "w": (6, 1, 4), "b": (6,)} | ({"s": (B, 6, 3)} if past else {})
    node = helper.make_node("CausalConvWithState", list(inputs), ["y", "z"], activation=activation)
    same_as_reference(inferred.network([node], inputs, "yz", opset=27), {})


def test_modified_scores() -> None:
    def modifier(operator: str, value: float) -> onnx.GraphProto:
        return helper.make_graph(
            [helper.make_node(operator, ["s", "c"], ["t"])],
            "modifier",
            [helper.make_tensor_value_info("s", TensorProto.FLOAT, None)],
            [helper.make_tensor_value_info("t", TensorProto.FLOAT, None)],
            [onnx.numpy_helper.from_array(np.array(value, np.float32), "c")],
        )

    graphs = {"score_mod": modifier("Pow", 2.0), "prob_mod": modifier("Mul", 0.5)}
    domain = "ai.onnx.preview"
    node = helper.make_node("FlexAttention", list("qkv"), ["y"], domain=domain, **graphs)
    network = inferred.network([node], SHARED, "y", opset=26, domains={domain: 1})
    same_as_reference(network, {})

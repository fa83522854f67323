"""LinearAttention and CausalConvWithState: what takes a sequence step by step, with a state.

The recurrence is a kernel of its own, in float32: for each head and step the state, a matrix of key
by value size, decays, takes up the step's key and value, and is read by its queries.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

from edgepack.compiler.frontend.converters.heaps import Cell, over, statements, store
from edgepack.compiler.frontend.converters.values import (
    along,
    bound,
    cast,
    filled,
    widened,
)
from edgepack.compiler.frontend.node import Converter, Node
from edgepack.compiler.schedules.expressions import index

DOMAIN = ""

_STATE, _DECAY, _BETA = 3, 4, 5
"""Inputs of LinearAttention that may be missing."""


@dataclass(frozen=True, kw_only=True)
class _Recurrence:
    """Sizes of a LinearAttention; which of decay and beta it has, and how many entries a head."""

    batch: int
    steps: int
    queries: int
    heads: int
    keys: int
    values: int
    scale: float
    decays: int
    """Entries of the decay for each head: none, one, or one for each key."""
    betas: int
    """Entries of beta for each step: none, one, or one for each head."""


def _linear_attention(node: Node) -> list[Any]:
    from tvm import relax

    rule = node.attributes.get("update_rule", "gated_delta")
    gated, delta = rule.startswith("gated"), rule.endswith("delta")
    if rule not in ("linear", "gated", "delta", "gated_delta"):
        raise node.unsupported(f"update_rule {rule!r}")
    batch, steps, width = node.shape()
    queries, heads = (int(node.attributes[f"{kind}_num_heads"]) for kind in ("q", "kv"))
    keys, values = width // queries, node.shape(2)[2] // heads
    recurrence = _Recurrence(
        batch=batch,
        steps=steps,
        queries=queries,
        heads=heads,
        keys=keys,
        values=values,
        scale=float(node.attributes.get("scale", 0.0)) or 1 / math.sqrt(keys),
        decays=node.shape(_DECAY)[2] // heads if gated else 0,
        betas=node.shape(_BETA)[2] if delta else 0,
    )
    operands = [_single(node, node.inputs[number]) for number in range(3)]
    operands.append(
        _single(node, node.inputs[_STATE])
        if node.has(_STATE)
        else filled([batch, heads, keys, values], 0, "float32")
    )
    if gated:
        operands.append(node.emit(relax.op.exp(_single(node, node.inputs[_DECAY]))))
    if delta:
        operands.append(_single(node, node.inputs[_BETA]))
    found = node.compute(partial(_recurred, recurrence=recurrence), *operands)
    result, state = (node.emit(relax.TupleGetItem(found, number)) for number in range(2))
    return [
        cast(value, output.dtype or "float32")
        for value, output in zip((result, state), node.outputs, strict=False)
    ]


def _single(node: Node, operand: Any) -> Any:
    return bound(node, cast(operand, "float32"))


def _recurred(*operands: Any, recurrence: _Recurrence) -> Any:
    """The outputs [batch, steps, queries * values], the last state, and room for a step's update."""
    from tvm import te

    r = recurrence
    shapes = [
        (r.batch, r.steps, r.queries * r.values),
        (r.batch, r.heads, r.keys, r.values),
        (r.batch, r.heads, r.values),
    ]

    def body(inputs: list[Any], outputs: list[Any]) -> Any:
        return statements(lambda: _Kernel(inputs, outputs, r).write())

    return te.extern(
        shapes, list(operands), body, name="linear_attention", dtype=["float32"] * len(shapes)
    )


class _Kernel:
    """The statements of the recurrence."""

    def __init__(self, inputs: list[Any], outputs: list[Any], recurrence: _Recurrence) -> None:
        self.query, self.key, self.value, self.past, *rest = inputs
        self.result, self.state, self.update = outputs
        self.decay = rest.pop(0) if recurrence.decays else None
        self.beta = rest.pop(0) if recurrence.betas else None
        self.sizes = recurrence

    def write(self) -> None:
        """Heads may be shared by threads; the steps of one follow each other."""
        from tvm import tirx
        from tvm.script.ir_builder import tirx as T

        r = self.sizes
        with over([r.batch * r.heads], shared=True) as (task,):
            n = Cell(tirx.floordiv(task, index(r.heads))).value
            head = Cell(tirx.floormod(task, index(r.heads))).value
            with over([r.keys, r.values]) as (k, v):
                store(self.state, [n, head, k, v], tirx.BufferLoad(self.past, [n, head, k, v]))
            with T.serial(0, index(r.steps)) as step:
                self._take_up(n, head, step)
                with over([r.queries // r.heads]) as (number,):
                    self._read(n, head, step, head * index(r.queries // r.heads) + number)

    def _take_up(self, n: Any, head: Any, step: Any) -> None:
        """The state decays; then the key's product with the value, or with what is new in it."""
        from tvm import tirx

        r, state = self.sizes, self.state
        with over([r.values]) as (v,):
            zero = tirx.const(0.0, "float32")
            new = zero if self.beta is not None else self._value(n, head, step, v)
            store(self.update, [n, head, v], new)
        if self.decay is not None or self.beta is not None:
            with over([r.keys]) as (k,):
                decay = Cell(self._decay(n, head, step, k)).value
                key = Cell(self._key(n, head, step, k)).value
                with over([r.values]) as (v,):
                    place = [n, head, k, v]
                    store(state, place, tirx.BufferLoad(state, place) * decay)
                    if self.beta is not None:
                        known = tirx.BufferLoad(self.update, [n, head, v])
                        term = tirx.BufferLoad(state, place) * key
                        store(self.update, [n, head, v], known + term)
        if self.beta is not None:
            entry = head if r.betas > 1 else index(0)
            beta = Cell(tirx.BufferLoad(self.beta, [n, step, entry])).value
            with over([r.values]) as (v,):
                known = tirx.BufferLoad(self.update, [n, head, v])
                store(self.update, [n, head, v], (self._value(n, head, step, v) - known) * beta)
        with over([r.keys]) as (k,):
            key = Cell(self._key(n, head, step, k)).value
            with over([r.values]) as (v,):
                added = key * tirx.BufferLoad(self.update, [n, head, v])
                old = tirx.BufferLoad(state, [n, head, k, v])
                store(state, [n, head, k, v], old + added)

    def _read(self, n: Any, head: Any, step: Any, query: Any) -> None:
        """The product of the state with one query, scaled."""
        from tvm import tirx

        r = self.sizes
        with over([r.values]) as (v,):
            place = [n, step, query * index(r.values) + v]
            store(self.result, place, tirx.const(0.0, "float32"))
        with over([r.keys]) as (k,):
            element = tirx.BufferLoad(self.query, [n, step, query * index(r.keys) + k])
            factor = Cell(element * r.scale).value
            with over([r.values]) as (v,):
                place = [n, step, query * index(r.values) + v]
                term = factor * tirx.BufferLoad(self.state, [n, head, k, v])
                store(self.result, place, tirx.BufferLoad(self.result, place) + term)

    def _value(self, n: Any, head: Any, step: Any, v: Any) -> Any:
        from tvm import tirx

        return tirx.BufferLoad(self.value, [n, step, head * index(self.sizes.values) + v])

    def _key(self, n: Any, head: Any, step: Any, k: Any) -> Any:
        from tvm import tirx

        return tirx.BufferLoad(self.key, [n, step, head * index(self.sizes.keys) + k])

    def _decay(self, n: Any, head: Any, step: Any, k: Any) -> Any:
        from tvm import tirx

        if self.decay is None:
            return tirx.const(1.0, "float32")
        each = self.sizes.decays
        entry = head * index(each) + (k if each > 1 else index(0))
        return tirx.BufferLoad(self.decay, [n, step, entry])


def _causal_conv(node: Node) -> list[Any]:
    """A depthwise convolution over what came before and the input, and the end of both together."""
    from tvm import relax

    batch, channels, length = node.shape()
    before = node.shape(1)[2] - 1
    dtype = node.dtype()
    past = node.inputs[3] if node.has(3) else filled([batch, channels, before], 0, dtype)
    data = node.inputs[0]
    whole = node.emit(relax.op.concat([past, data], axis=2)) if before else data
    state = node.emit(relax.op.strided_slice(whole, [2], [length], [length + before]))
    result = node.emit(
        relax.op.nn.conv1d(
            widened(node, whole),
            widened(node, node.inputs[1]),
            groups=channels,
            data_layout="NCW",
            kernel_layout="OIW",
        )
    )
    if node.has(2):
        bias = bound(node, along(widened(node, node.inputs[2]), 1, 3))
        result = node.emit(relax.op.add(result, bias))
    result = widened(node, bound(node, cast(result, dtype)))
    if node.attributes.get("activation", "none") in ("silu", "swish"):
        result = node.emit(relax.op.nn.silu(result))
    return [bound(node, cast(result, dtype)), state]


CONVERTERS: dict[str, Converter] = {
    "CausalConvWithState": _causal_conv,
    "LinearAttention": _linear_attention,
}

"""Swish and SwiGLU, and RotaryEmbedding: what surrounds the attention of a language model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from edgepack.compiler.frontend.converters.values import bound, cast, widened
from edgepack.compiler.frontend.node import Converter, Node, constant, dtype_of

DOMAIN = ""


def _swish(node: Node) -> Any:
    return cast(_gated(node), node.dtype())


def _gated(node: Node) -> Any:
    """x * sigmoid(alpha * x)."""
    from tvm import relax

    data, alpha = widened(node, node.inputs[0]), float(node.attributes.get("alpha", 1.0))
    if alpha == 1:
        return node.emit(relax.op.nn.silu(data))
    slope = node.emit(relax.op.multiply(data, constant(alpha, dtype_of(data))))
    return node.emit(relax.op.multiply(data, node.emit(relax.op.sigmoid(slope))))


def _swiglu(node: Node) -> Any:
    from tvm import relax

    gate = widened(node, bound(node, cast(_gated(node), node.dtype())))
    product = node.emit(relax.op.multiply(gate, widened(node, node.inputs[1])))
    return cast(product, node.dtype())


@dataclass(frozen=True, kw_only=True)
class _Rotation:
    """Which elements of a head turn together, and where the heads are."""

    heads: int
    size: int
    turned: int
    """So many elements of each head turn, the first ones; the others stay."""
    interleaved: bool
    heads_first: bool
    """[batch, heads, sequence, size]; otherwise [batch, sequence, heads * size]."""

    def place(self, at: Any) -> tuple[Any, Any]:
        """The position in the sequence, and the element of the head."""
        from tvm import tirx

        if self.heads_first:
            return at[2], at[3]
        return at[1], tirx.floormod(at[2], self.size)

    def partner(self, at: Any, element: Any) -> tuple[Any, Any, Any]:
        """Where the other of the pair is, the pair's number, and whether it is the second."""
        from tvm import tirx

        half = self.turned // 2
        if self.interleaved:
            is_second = tirx.floormod(element, 2).equal(1)
            pair, far = tirx.floordiv(element, 2), 1
        else:
            is_second, pair, far = element >= half, tirx.floormod(element, half), half
        return [*at[:-1], at[-1] + tirx.Select(is_second, -far, far)], pair, is_second


def _rotary_embedding(node: Node) -> Any:
    shape, attributes = node.shape(), node.attributes
    heads_first = len(shape) == 4
    heads = shape[1] if heads_first else int(attributes["num_heads"])
    size = shape[3] if heads_first else shape[2] // heads
    rotation = _Rotation(
        heads=heads,
        size=size,
        turned=int(attributes.get("rotary_embedding_dim", 0)) or size,
        interleaved=bool(attributes.get("interleaved", 0)),
        heads_first=heads_first,
    )
    operands = [widened(node, operand) for operand in node.inputs[:3]]
    positions = [node.inputs[3]] if node.has(3) else []
    result = node.compute(partial(_turned, rotation=rotation), *operands, *positions)
    return cast(result, node.dtype())


def _turned(data: Any, cosines: Any, sines: Any, *positions: Any, rotation: _Rotation) -> Any:
    """Each pair turned by the angle of its position; positions beyond the table mean its ends."""
    from tvm import te, tirx

    def entry(table: Any, n: Any, step: Any, pair: Any) -> Any:
        if not positions:
            return table(n, step, pair)
        row = positions[0](n, step)
        last = tirx.const(int(table.shape[0]) - 1, positions[0].dtype)
        return table(tirx.max(tirx.min(row, last), tirx.const(0, positions[0].dtype)), pair)

    def element(*at: Any) -> Any:
        step, part = rotation.place(at)
        other, pair, is_second = rotation.partner(at, part)
        cosine, sine = (entry(table, at[0], step, pair) for table in (cosines, sines))
        # The second of a pair takes the first's sine, the first takes off the second's.
        turned = data(*at) * cosine + data(*other) * tirx.Select(is_second, sine, -sine)
        if rotation.turned == rotation.size:
            return turned
        return tirx.if_then_else(part < rotation.turned, turned, data(*at))

    return te.compute(data.shape, element, name="rotary_embedding")


CONVERTERS: dict[str, Converter] = {
    "RotaryEmbedding": _rotary_embedding,
    "SwiGLU": _swiglu,
    "Swish": _swish,
}

"""Attention: scores of queries and keys, masked, their softmax, and its product with the values.

The matrix products are Relax's, one for each head of the keys: queries that share one are rows of
the same product. With a 16-bit type the products are summed in float32 and rounded where ONNX's
definition has a value of that type.
"""

from __future__ import annotations

import math
from typing import Any

from edgepack.compiler.frontend.converters.attention_masks import PAST_KEY, PAST_VALUE, masked
from edgepack.compiler.frontend.converters.values import (
    bound,
    cast,
    reshaped,
    widened,
    working_type,
)
from edgepack.compiler.frontend.node import Converter, Node, constant, dtype_of, shape_of

DOMAIN = ""

_RAW, _CAPPED, _BIASED, _PROBABILITIES = range(4)
"""What qk_matmul_output_mode says that the fourth output holds."""


def _attention(node: Node) -> list[Any]:
    from tvm import relax

    query, key, value = (_heads(node, index) for index in range(3))
    if node.has(PAST_KEY) and node.has(PAST_VALUE):
        key, value = (
            node.emit(relax.op.concat([node.inputs[index], new], axis=2))
            for index, new in ((PAST_KEY, key), (PAST_VALUE, value))
        )
    mode = int(node.attributes.get("qk_matmul_output_mode", _RAW))
    shown: dict[int, Any] = {}
    shown[_RAW] = scores = _scores(node, query, key)
    shown[_CAPPED] = scores = _capped(node, scores)
    scores, empty = masked(node, scores)
    shown[_BIASED] = scores
    shown[_PROBABILITIES] = weights = _softmax(node, scores, empty)
    result = _weighted(node, weights, value)
    return [result, key, value, shown[mode]]


def _heads(node: Node, index: int) -> Any:
    """An input as [batch, heads, sequence, size]."""
    from tvm import relax

    data, shape = node.inputs[index], node.shape(index)
    if len(shape) == 4:
        return data
    heads = int(node.attributes["kv_num_heads" if index else "q_num_heads"])
    split = bound(node, reshaped(data, [shape[0], shape[1], heads, shape[2] // heads]))
    return node.emit(relax.op.permute_dims(split, [0, 2, 1, 3]))


def _rounded(node: Node, value: Any) -> Any:
    """``value`` with the digits that the node's type has, in the type to compute in."""
    narrow = bound(node, cast(value, node.dtype()))
    return widened(node, narrow)


def _scores(node: Node, query: Any, key: Any) -> Any:
    """[batch, heads, queries, keys], of the node's type."""
    from tvm import relax

    batch, heads, queries, size = shape_of(query)
    shared, keys = shape_of(key)[1:3]
    scale = math.sqrt(float(node.attributes.get("scale", 1 / math.sqrt(size))))
    # Each side by the root of the scale, as ONNX says: products of 16-bit types stay in range.
    query, key = (_rounded(node, _times(node, operand, scale)) for operand in (query, key))
    rows = bound(node, reshaped(query, [batch, shared, heads // shared * queries, size]))
    columns = node.emit(relax.op.permute_dims(key, [0, 1, 3, 2]))
    product = node.emit(relax.op.matmul(rows, columns))
    return bound(node, cast(_grouped(node, product, [batch, heads, queries, keys]), node.dtype()))


def _grouped(node: Node, product: Any, shape: list[int]) -> Any:
    return bound(node, reshaped(product, shape))


def _times(node: Node, operand: Any, scale: float) -> Any:
    from tvm import relax

    wide, dtype = widened(node, operand), dtype_of(operand)
    factor = _rounded_constant(scale, dtype)
    return node.emit(relax.op.multiply(wide, constant(factor, dtype_of(wide))))


def _rounded_constant(value: float, dtype: str) -> float:
    import numpy as np

    return float(np.float16(value)) if dtype == "float16" else value


def _capped(node: Node, scores: Any) -> Any:
    """softcap * tanh(scores / softcap)."""
    from tvm import relax

    cap = float(node.attributes.get("softcap", 0.0))
    if not cap:
        return scores
    wide = widened(node, scores)
    limit = constant(cap, dtype_of(wide))
    part = node.emit(relax.op.tanh(node.emit(relax.op.divide(wide, limit))))
    return bound(node, cast(node.emit(relax.op.multiply(part, limit)), node.dtype()))


def _softmax(node: Node, scores: Any, empty: Any) -> Any:
    """Of the node's type; zero in the rows that are empty, where arithmetic gives NaN."""
    import onnx
    from tvm import relax

    precision = int(node.attributes.get("softmax_precision", 0))
    dtype = dtype_of(scores)
    if precision:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(precision).name
    wide = bound(node, cast(scores, working_type(dtype)))
    weights = node.emit(relax.op.nn.softmax(wide, axis=-1))
    if empty is not None:
        weights = node.emit(relax.op.where(empty, constant(0, dtype_of(wide)), weights))
    return bound(node, cast(weights, node.dtype()))


def _weighted(node: Node, weights: Any, value: Any) -> Any:
    """The product with the values, in the shape of the output."""
    from tvm import relax

    batch, heads, queries, keys = shape_of(weights)
    shared, size = shape_of(value)[1], shape_of(value)[3]
    rows = reshaped(widened(node, weights), [batch, shared, heads // shared * queries, keys])
    product = node.emit(relax.op.matmul(bound(node, rows), widened(node, value)))
    result = _grouped(node, product, [batch, heads, queries, size])
    result = bound(node, cast(result, node.outputs[0].dtype))
    if len(node.shape()) == 4:
        return result
    swapped = node.emit(relax.op.permute_dims(result, [0, 2, 1, 3]))
    return reshaped(swapped, [batch, queries, heads * size])


CONVERTERS: dict[str, Converter] = {"Attention": _attention}

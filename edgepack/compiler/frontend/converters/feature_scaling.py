"""Operators of ai.onnx.ml on single features: Scaler, Normalizer, Imputer, Binarizer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from edgepack.compiler.frontend.converters.formulas import elementwise
from edgepack.compiler.frontend.converters.values import bound, cast
from edgepack.compiler.frontend.node import Converter, Node, constant

DOMAIN = "ai.onnx.ml"

_NORMS = ("MAX", "L1", "L2")


def _scaler(node: Node) -> Any:
    from tvm import relax

    # What ONNX Runtime computes in, before the result becomes float32.
    dtype = "float64" if node.dtype() == "float64" else "float32"
    value = bound(node, cast(node.inputs[0], dtype))
    offset, scale = (node.attributes.get(name, ()) for name in ("offset", "scale"))
    if len(offset):
        value = node.emit(relax.op.subtract(value, _per_feature(node, offset, dtype)))
    if len(scale):
        value = node.emit(relax.op.multiply(value, _per_feature(node, scale, dtype)))
    return bound(node, cast(value, "float32"))


def _per_feature(node: Node, values: Sequence[float], dtype: str) -> Any:
    """One value for all features, or one for each along the last axis, as a constant."""
    shape = node.shape()
    if len(values) == 1:
        return constant(values[0], dtype)
    if len(shape) not in (1, 2) or len(values) != shape[-1]:
        raise node.unsupported(f"it has {len(values)} values for an input of shape {list(shape)}")
    return constant(list(values), dtype)


def _normalizer(node: Node) -> Any:
    from tvm import relax, tirx

    norm = node.attributes.get("norm", "MAX")
    if norm not in _NORMS or len(node.shape()) not in (1, 2):
        shape = list(node.shape())
        raise node.unsupported(f"its norm is {norm!r}, the shape of its input {shape}")
    value = bound(node, cast(node.inputs[0], "float32"))

    def known(x: Any) -> Any:
        """NaN is no maximum, as in ONNX Runtime."""
        return tirx.Select(tirx.isnan(x), tirx.min_value("float32"), x)

    if norm == "MAX":
        among = elementwise(node, known, value)
        total = node.emit(relax.op.max(among, axis=-1, keepdims=True))
    elif norm == "L1":
        total = node.emit(relax.op.sum(relax.op.abs(value), axis=-1, keepdims=True))
    else:
        total = node.emit(relax.op.sum(relax.op.multiply(value, value), axis=-1, keepdims=True))

    def divided(x: Any, by: Any) -> Any:
        if norm == "L2":
            length = tirx.sqrt(x * x / by)
            result = tirx.Select(x < tirx.const(0, "float32"), -length, length)
        else:
            result = x / by
        return tirx.Select(by == tirx.const(0, "float32"), x, result)

    return elementwise(node, divided, value, total)


def _imputer(node: Node) -> Any:
    from tvm import tirx

    kind = "float" if node.dtype().startswith("float") else "int64"
    values = node.attributes.get(f"imputed_value_{kind}s", ())
    if not len(values):
        raise node.unsupported(f"it has no imputed_value_{kind}s for an input of {node.dtype()}")
    replaced = node.attributes.get(f"replaced_value_{kind}", 0)

    def imputed(x: Any, value: Any) -> Any:
        if math.isnan(replaced):
            return tirx.Select(tirx.isnan(x), value, x)
        return tirx.Select(x == tirx.const(replaced, x.ty.dtype), value, x)

    if kind == "int64" and node.dtype() == "int32":
        _check_int32(node, [*values, replaced])
    return elementwise(node, imputed, node.inputs[0], _per_feature(node, values, node.dtype()))


def _check_int32(node: Node, values: Sequence[int]) -> None:
    if any(not -(2**31) <= value < 2**31 for value in values):
        raise node.unsupported("a value to impute or to replace does not fit int32")


def _binarizer(node: Node) -> Any:
    from tvm import tirx

    dtype = node.dtype()
    limit = float(node.attributes.get("threshold", 0.0))
    compared = dtype if dtype.startswith("float") else "float32"

    def above(x: Any) -> Any:
        return tirx.Cast(dtype, tirx.Cast(compared, x) > tirx.const(limit, compared))

    return elementwise(node, above, node.inputs[0])


CONVERTERS: dict[str, Converter] = {
    "Scaler": _scaler,
    "Normalizer": _normalizer,
    "Imputer": _imputer,
    "Binarizer": _binarizer,
}

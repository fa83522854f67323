"""Cast, CastLike and BitCast among the types that a tensor may have."""

from __future__ import annotations

from typing import Any

from edgepack.compiler.frontend.converters.values import cast
from edgepack.compiler.frontend.node import Converter, Node, constant, dtype_of

DOMAIN = ""

_BY_WAY_OF = {
    **dict.fromkeys(("int8", "int16", "uint8", "uint16"), "int32"),
    "uint32": "int64",
}
"""Processors convert to these two; a smaller type takes the low bits, as in C."""


def _cast(node: Node) -> Any:
    return _converted(node, node.inputs[0], node.outputs[0].dtype)


def _converted(node: Node, data: Any, dtype: str) -> Any:
    from tvm import relax

    source = dtype_of(data)
    if source == dtype:
        return data
    if dtype == "bool":
        return relax.op.not_equal(data, constant(0, source))
    if source.startswith(("float", "bfloat")) and dtype in _BY_WAY_OF:
        data = node.emit(cast(data, _BY_WAY_OF[dtype]))
    return cast(data, dtype)


def _bit_cast(node: Node) -> Any:
    """The same bits as another type of the same size; a truth value is a byte that is 0 or 1."""
    source, dtype = node.dtype(), node.outputs[0].dtype
    data = node.inputs[0]
    if source == "bool":
        source, data = "uint8", node.emit(cast(data, "uint8"))
    if dtype == "bool":
        return _converted(node, data, dtype)
    if source == dtype:
        return data

    def reinterpreted(x: Any) -> Any:
        from tvm import te, tirx

        return te.compute(x.shape, lambda *at: tirx.reinterpret(dtype, x(*at)))

    return node.compute(reinterpreted, data)


CONVERTERS: dict[str, Converter] = {"BitCast": _bit_cast, "Cast": _cast, "CastLike": _cast}

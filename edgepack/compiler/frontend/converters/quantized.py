"""Numbers and the integers that stand for them: QuantizeLinear and its kin.

x = (q - zero_point) * scale, with one scale for a tensor, for each place of an axis, or for each
block of an axis. Rounding is to the nearest, halves to even, and what is out of range saturates, in
the order and the types of ONNX Runtime: the same integers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from edgepack.compiler.frontend.converters.values import bound, cast, constants_of, reshaped
from edgepack.compiler.frontend.node import (
    Converter,
    Node,
    constant,
    constant_of,
    dtype_of,
    shape_of,
)

if TYPE_CHECKING:
    import numpy as np

DOMAIN = ""

_BEYOND = float(1 << 20)
"""Further than any zero point from the end of any range; an int32 holds it exactly."""


def quantize(node: Node) -> Any:
    """QuantizeLinear by its definition."""
    from tvm import relax

    result_type = node.outputs[0].dtype
    range_of(node, result_type)
    division, scale = _division_type(node), spread(node, node.inputs[1])
    zero_point = spread(node, node.inputs[2]) if node.has(2) else constant(0, result_type)
    known = constants_of([node.inputs[0], scale, zero_point])
    if known is not None:
        return _quantized_now(node, known, division)
    data = bound(node, cast(node.inputs[0], division))
    quotient = node.emit(relax.op.divide(data, bound(node, cast(scale, division))))
    return saturated(node, bound(node, cast(quotient, "float32")), zero_point, result_type)


def _quantized_now(node: Node, known: Sequence[np.ndarray], division: str) -> Any:
    """Of data, scale and zero point."""
    import numpy as np

    data, scale, zero_point = known
    low, high = (end - zero_point.astype(np.int32) for end in range_of(node, node.outputs[0].dtype))
    with np.errstate(all="ignore"):
        quotient = (data.astype(division) / scale.astype(division)).astype(np.float32)
    cut = np.where(np.isnan(quotient), high, np.clip(quotient, low, high))
    return constant(np.rint(cut) + zero_point, node.outputs[0].dtype)


def _division_type(node: Node) -> str:
    """What to divide in: as the model says, else float32, or float64 for doubles."""
    import onnx

    precision = node.attributes.get("precision", 0)
    if precision:
        name: str = onnx.helper.tensor_dtype_to_np_dtype(precision).name
        return name
    return "float64" if node.dtype() == "float64" else "float32"


def range_of(node: Node, dtype: str) -> tuple[int, int]:
    """The least and the greatest number of an integer type of up to 16 bits. Raises ModelError."""
    found = re.fullmatch(r"(u?)int(\d+)", dtype)
    bits = int(found[2]) if found else 0
    if not found or bits > 16:
        raise node.unsupported(f"integers of type {dtype}", "export the model with int8 or uint8")
    return (0, (1 << bits) - 1) if found[1] else (-(1 << bits - 1), (1 << bits - 1) - 1)


def saturated(node: Node, value: Any, zero_point: Any, dtype: str) -> Any:
    """float32 ``value``, rounded, plus a zero point that broadcasts to it, as integers ``dtype``."""
    from tvm import relax

    low, high = range_of(node, dtype)
    known = constant_of(zero_point) if zero_point is not None else None
    if zero_point is None or (known is not None and known.size == 1):
        offset = 0 if known is None else int(known.reshape(-1)[0])
        return shifted(node, value, (low - offset, high - offset), offset, dtype)
    clipped = node.emit(relax.op.clip(value, -_BEYOND, _BEYOND))
    moved = relax.op.add(
        node.emit(relax.op.astype(node.emit(relax.op.round(clipped)), "int32")),
        bound(node, cast(zero_point, "int32")),
    )
    inside = node.emit(relax.op.maximum(node.emit(moved), constant(low, "int32")))
    inside = node.emit(relax.op.minimum(inside, constant(high, "int32")))
    return relax.op.astype(inside, dtype)


def shifted(node: Node, value: Any, ends: tuple[int, int], offset: int, dtype: str) -> Any:
    """float32 ``value``, cut to ``ends`` and rounded, plus ``offset``, as integers ``dtype``.

    Rounding keeps the order and whole numbers: what is cut first is rounded in two operations.
    """
    from tvm import relax

    # NaN becomes the upper end: the clip takes that where a comparison is false.
    clipped = node.emit(relax.op.clip(value, float(ends[0]), float(ends[1])))
    integers = node.emit(relax.op.astype(node.emit(relax.op.round(clipped)), "int32"))
    if offset:
        integers = node.emit(relax.op.add(integers, constant(offset, "int32")))
    return relax.op.astype(integers, dtype)


def _dequantize(node: Node) -> Any:
    import numpy as np
    from tvm import relax

    integers, scale = centred(node), spread(node, node.inputs[1])
    known = constants_of([integers, scale])
    if known is not None:  # weights
        return constant(known[0] * known[1].astype(np.float32), node.outputs[0].dtype)
    result = relax.op.multiply(integers, bound(node, cast(scale, "float32")))
    return cast(node.emit(result), node.outputs[0].dtype)


def centred(node: Node) -> Any:
    """The integers of DequantizeLinear's input less their zero point, as float32."""
    zero_point = spread(node, node.inputs[2]) if node.has(2) else None
    return difference(node, node.inputs[0], zero_point, "float32")


def difference(node: Node, data: Any, zero_point: Any, dtype: str) -> Any:
    """``data`` less a zero point that broadcasts to it, exactly, as ``dtype``; known ones are known."""
    import numpy as np
    from tvm import relax

    # An int32 holds it; the zero point of an int32 tensor is 0.
    wide = "int32" if "int" in dtype_of(data) else "float32"
    value = constant_of(zero_point)
    if zero_point is None or (value is not None and not value.any()):
        known = constants_of([data])
        return bound(node, cast(data, dtype)) if known is None else constant(known[0], dtype)
    known = constants_of([data, zero_point])
    if known is not None:
        return constant(np.subtract(*(array.astype(wide) for array in known)), dtype)
    parts = (bound(node, cast(operand, wide)) for operand in (data, zero_point))
    return bound(node, cast(node.emit(relax.op.subtract(*parts)), dtype))


def spread(node: Node, parameter: Any) -> Any:
    """A scale or a zero point as it broadcasts to the data."""
    shape, extents = node.shape(), shape_of(parameter)
    block = int(node.attributes.get("block_size", 0))
    if len(extents) == 0 or (extents == (1,) and not block):
        return bound(node, reshaped(parameter, []))
    axis = int(node.attributes.get("axis", 1)) % len(shape)
    if block:
        return _repeated(node, parameter, axis, block, shape[axis])
    spread = [1] * len(shape)
    spread[axis] = extents[0]
    return bound(node, reshaped(parameter, spread))


def _repeated(node: Node, parameter: Any, axis: int, block: int, extent: int) -> Any:
    """Each entry along ``axis`` for a whole block; the last block may be shorter."""
    from tvm import relax

    value = constant_of(parameter)
    if value is not None:
        return constant(value.repeat(block, axis).take(range(extent), axis), dtype_of(parameter))
    repeated = node.emit(relax.op.repeat(parameter, block, axis))
    if shape_of(repeated)[axis] == extent:
        return repeated
    return node.emit(relax.op.strided_slice(repeated, [axis], [0], [extent]))


def _dynamic_quantize(node: Node) -> list[Any]:
    """To uint8, with the scale and the zero point that the data's own range gives."""
    from tvm import relax

    data, zero = node.inputs[0], constant(0, "float32")
    high = node.emit(relax.op.maximum(node.emit(relax.op.max(data)), zero))
    low = node.emit(relax.op.minimum(node.emit(relax.op.min(data)), zero))
    width = node.emit(relax.op.subtract(high, low))
    is_nothing = node.emit(relax.op.equal(width, zero))
    step = node.emit(relax.op.divide(width, constant(255, "float32")))
    scale = node.emit(relax.op.where(is_nothing, constant(1, "float32"), step))
    start = node.emit(relax.op.subtract(zero, node.emit(relax.op.divide(low, scale))))
    zero_point = node.emit(saturated(node, start, None, "uint8"))
    quotient = node.emit(relax.op.divide(data, scale))
    return [saturated(node, quotient, zero_point, "uint8"), scale, zero_point]


CONVERTERS: dict[str, Converter] = {
    "DequantizeLinear": _dequantize,
    "DynamicQuantizeLinear": _dynamic_quantize,
}

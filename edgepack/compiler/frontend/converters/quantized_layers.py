"""Layers of integers, spelled with numbers: DequantizeLinear, an operator, QuantizeLinear.

They are computed on the integers, as float32, with the Relu or Clip that may stand before QuantizeLinear:

    y = round(clip((sum((x - zx) * (w - zw)) + b) * (sx * sw / sy))) + zy      products
    y = round(clip((a - za) * (b - zb) * (sa * sb / sy))) + zy                 element by element
    y = round(clip((a - za) * (sa / sy) + (b - zb) * (sb / sy))) + zy          sums
    y = round(clip(f(x - zx) * (sx / sy))) + zy                                pools and movements

There are fewer products, and no division for each number; what an activation cuts off, the clip does.
Sums of integers below 2^24 are exact in any order, so that this gives what ONNX Runtime does where it joins
these operators (QLinearConv and its kin), but for a tie here and there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from edgepack.compiler.frontend.converters import pooling, views
from edgepack.compiler.frontend.converters.convolution import convolved
from edgepack.compiler.frontend.converters.products import oriented
from edgepack.compiler.frontend.converters.quantized import centred, quantize, range_of, shifted
from edgepack.compiler.frontend.converters.values import bound, concatenated
from edgepack.compiler.frontend.converters.windows import windows_of
from edgepack.compiler.frontend.node import Converter, Node, constant, constant_of, shape_of

if TYPE_CHECKING:
    import numpy as np

DOMAIN = ""

_BYTES = ("int8", "uint8")
_EVERYTHING = (-math.inf, math.inf)
_NEARLY = 1e-6
"""Relative; how well the scale of an integer bias must fit those of the operands."""


def _quantize(node: Node) -> Any:
    layer, ends = _quantised(node)
    scales = None if layer is None else _scales(node, layer)
    if layer is None or scales is None:
        return quantize(node)
    return _as_integers(node, layer, scales, ends)


def _quantised(node: Node) -> tuple[Node | None, tuple[float, float]]:
    """The operator that is quantised, and the ends that activations cut it to; None for any other.

    Nobody else may read it or its activations: they would be computed twice.
    """
    low, high = _EVERYTHING
    giver = node.giver(0)
    while giver is not None and giver.readers == 1:
        if giver.operator in _OPERATORS:
            return giver, (low, high)
        ends = _ends(giver)
        if ends is None:
            break
        low, high = (min(max(end, low), high) for end in ends)
        giver = giver.giver(0)
    return None, _EVERYTHING


def _ends(node: Node) -> tuple[float, float] | None:
    """What Relu, or Clip with known ends, cuts to; None for anything else."""
    if node.operator == "Relu":
        return 0.0, math.inf
    if node.operator != "Clip":
        return None
    ends = [
        node.attributes.get(name, end)
        for name, end in zip(("min", "max"), _EVERYTHING, strict=True)
    ]
    for index in (1, 2):
        if node.has(index):
            value = node.constant(index)
            if value is None:
                return None
            ends[index - 1] = float(value.reshape(()))
    return ends[0], ends[1]


def _scales(node: Node, layer: Node) -> list[np.ndarray] | None:
    """Of the operands and the result, float32; the second of a product may have one for each channel.

    None where an operand is no dequantised bytes, or a parameter is not known or lies elsewhere.
    """
    operands = _operands(layer)
    if node.outputs[0].dtype not in _BYTES or node.dtype() != "float32":
        return None
    if any(layer.attributes.get(name, 1) != 1 for name in ("alpha", "beta")):
        return None
    if layer.operator in _PRODUCTS and layer.has(2) and layer.constant(2) is None:
        return None
    scales = []
    for quantised in (*operands, node):
        known = None if quantised is None else _scale(quantised)
        if quantised is None or known is None:
            return None
        if quantised is not node and not _is_bytes(quantised):
            return None
        if known.size > 1 and not (quantised is layer.giver(1) and _by_channel(layer, quantised)):
            return None
        scales.append(known.reshape(-1))
    return scales


def _operands(layer: Node) -> list[Node | None]:
    """What gives the inputs that are to be dequantised."""
    count = _OPERATORS[layer.operator].operands or len(layer.inputs)
    return [layer.giver(index) for index in range(count)]


def _scale(quantised: Node) -> np.ndarray | None:
    """The scale of QuantizeLinear or DequantizeLinear, if it is above 0 and the zero point known, too."""
    import numpy as np

    scale = quantised.constant(1)
    if scale is None or scale.dtype != "float32" or quantised.attributes.get("block_size"):
        return None
    if not ((scale > 0) & np.isfinite(scale)).all():
        return None
    zero_point = quantised.constant(2)
    if quantised.has(2) and (zero_point is None or zero_point.size != scale.size):
        return None
    return scale


def _is_bytes(operand: Node) -> bool:
    return operand.operator == "DequantizeLinear" and operand.dtype() in _BYTES


def _by_channel(layer: Node, weight: Node) -> bool:
    """Whether a kernel's scales lie along the channels of the result."""
    rank = len(weight.shape())
    if layer.operator not in _PRODUCTS or rank < 2:
        return False
    first = layer.operator == "Conv" or layer.attributes.get("transB", 0)
    return int(weight.attributes.get("axis", 1)) % rank == (0 if first else rank - 1)


def _as_integers(
    node: Node, layer: Node, scales: list[np.ndarray], ends: tuple[float, float]
) -> Any:
    """What ``node`` makes of the layer."""
    import numpy as np

    own = scales[-1]
    integers = [centred(giver) for giver in _operands(layer) if giver is not None]
    steps = _OPERATORS[layer.operator].compute(layer, integers, scales)
    zero_point = node.constant(2)
    offset = 0 if zero_point is None else int(zero_point.reshape(()))
    least, greatest = (end - offset for end in range_of(node, node.outputs[0].dtype))
    # Rounding keeps the order, so the ends may be rounded as well.
    low, high = np.clip(np.rint(np.divide(ends, own, dtype=np.float32)), least, greatest)
    return shifted(node, steps, (int(low), int(high)), offset, node.outputs[0].dtype)


def _scaled(node: Node, value: Any, factor: np.ndarray) -> Any:
    from tvm import relax

    if (factor == 1).all():
        return value
    spread = factor.reshape(()) if factor.size == 1 else factor  # of a result without axes, too
    return node.emit(relax.op.multiply(value, constant(spread, "float32")))


def _product(layer: Node, operands: list[Any], scales: list[np.ndarray]) -> Any:
    from tvm import relax

    first, second, own = scales
    if layer.operator == "Conv":
        windows = windows_of(layer, shape_of(operands[1])[2:])
        value = layer.emit(convolved(layer, operands[0], operands[1], windows))
    else:
        value = layer.emit(relax.op.matmul(*oriented(layer, operands)))
    if layer.has(2):
        bias = _along_channels(layer, _bias(layer, first * second))
        value = layer.emit(relax.op.add(value, constant(bias, "float32")))
    # In the scales' own type, as ONNX Runtime does: the factor is rounded twice.
    return _scaled(layer, value, _along_channels(layer, first * second / own))


def _bias(layer: Node, scale: np.ndarray) -> np.ndarray:
    """In units of the products of integers: whole numbers where it is quantised with their scale."""
    import numpy as np

    value, given = layer.known(2, "bias"), layer.giver(2)
    if given is not None and given.operator == "DequantizeLinear" and given.dtype() == "int32":
        own = _scale(given)
        if own is not None and np.allclose(own.reshape(-1), scale, rtol=_NEARLY, atol=0):
            whole = constant_of(centred(given))
            assert whole is not None
            return whole
    units: np.ndarray = value / scale
    return units


def _along_channels(layer: Node, values: np.ndarray) -> np.ndarray:
    """As values for each channel broadcast to the result: a Conv has them second, products last."""
    if layer.operator != "Conv" or values.size == 1:
        return values
    return values.reshape([-1] + [1] * (len(layer.shape()) - 2))


def _parts(layer: Node, operands: list[Any], scales: list[np.ndarray]) -> list[Any]:
    """The operands in steps of the result."""
    *factors, own = scales
    return [
        _scaled(layer, operand, factor / own)
        for operand, factor in zip(operands, factors, strict=True)
    ]


def _sum(layer: Node, operands: list[Any], scales: list[np.ndarray]) -> Any:
    from tvm import relax

    return layer.emit(relax.op.add(*_parts(layer, operands, scales)))


def _concatenation(layer: Node, operands: list[Any], scales: list[np.ndarray]) -> Any:
    parts = _parts(layer, operands, scales)
    return bound(layer, concatenated(layer, parts, int(layer.attributes["axis"])))


def _times(layer: Node, operands: list[Any], scales: list[np.ndarray]) -> Any:
    from tvm import relax

    first, second, own = scales
    return _scaled(layer, layer.emit(relax.op.multiply(*operands)), first * second / own)


def _moved(layer: Node, operands: list[Any], scales: list[np.ndarray]) -> Any:
    """What the operator's own converter makes of the integers, as it would of the numbers."""
    made = _MOVEMENTS[layer.operator](replace(layer, inputs=(*operands, *layer.inputs[1:])))
    result = made[0] if isinstance(made, list) else made
    return _scaled(layer, bound(layer, result), scales[0] / scales[1])


@dataclass(frozen=True, kw_only=True)
class _Operator:
    """``compute(layer, integers, scales)`` gives the result in steps of the result's scale, not yet whole.

    ``operands`` inputs are to be dequantised, the first ones; 0: all.
    """

    operands: int
    compute: Callable[[Node, list[Any], list[np.ndarray]], Any]


_PRODUCTS = ("Conv", "Gemm", "MatMul")
_MOVEMENTS: dict[str, Converter] = pooling.CONVERTERS | views.CONVERTERS

_OPERATORS: dict[str, _Operator] = {
    "Add": _Operator(operands=2, compute=_sum),
    "Concat": _Operator(operands=0, compute=_concatenation),
    "Mul": _Operator(operands=2, compute=_times),
    **dict.fromkeys(_PRODUCTS, _Operator(operands=2, compute=_product)),
    **dict.fromkeys(
        ("AveragePool", "GlobalAveragePool", "MaxPool"), _Operator(operands=1, compute=_moved)
    ),
    **dict.fromkeys(
        ("Flatten", "Reshape", "Squeeze", "Transpose", "Unsqueeze"),
        _Operator(operands=1, compute=_moved),
    ),
}

CONVERTERS: dict[str, Converter] = {"QuantizeLinear": _quantize}

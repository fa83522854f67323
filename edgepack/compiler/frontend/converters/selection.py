"""One value or another: bounds, slopes by sign, and choices by a condition."""

from __future__ import annotations

import math
from typing import Any

from edgepack.compiler.frontend.converters.values import filled
from edgepack.compiler.frontend.node import Converter, Node, constant, constant_of

DOMAIN = ""


def _clip(node: Node) -> Any:
    """Not below the lower bound, then not above the upper; NaN and a missing bound bound nothing."""
    from tvm import relax

    low, high = (_bound(node, index) for index in (1, 2))
    data = node.inputs[0]
    if low is not None:
        data = node.emit(relax.op.maximum(data, low))
    if high is not None:
        data = node.emit(relax.op.minimum(data, high))
    return data


def _bound(node: Node, index: int) -> Any:
    """A bound: an attribute until opset 11, then an input."""
    from tvm import relax

    dtype = node.dtype()
    if not node.has(index):
        value = node.attributes.get(("min", "max")[index - 1])
        return None if value is None else constant(value, dtype)
    bound = node.inputs[index]
    known = constant_of(bound)
    if known is not None:
        missing = known.dtype.kind == "f" and math.isnan(known.item())
        return None if missing else constant(known.reshape(()), dtype)
    if not dtype.startswith("float"):
        return bound
    unbound = constant(-math.inf if index == 1 else math.inf, dtype)
    return node.emit(relax.op.where(node.emit(relax.op.isnan(bound)), unbound, bound))


def _prelu(node: Node) -> Any:
    from tvm import relax

    data, slope = node.inputs
    below = node.emit(relax.op.less(data, constant(0, node.dtype())))
    steep = node.emit(relax.op.multiply(data, slope))
    return relax.op.where(below, steep, data)


def _where(node: Node) -> Any:
    from tvm import relax

    return relax.op.where(*node.inputs)


def _dropout(node: Node) -> list[Any]:
    """Nothing is dropped in inference; the mask says so, until opset 10 in the data's type."""
    training = node.constant(2)
    if node.has(2) and (training is None or (training.item() and _drops(node))):
        raise node.unsupported("it drops values at random", "export the model for inference")
    mask = node.outputs[1].dtype if len(node.outputs) > 1 and node.outputs[1].name else "bool"
    return [node.inputs[0], filled(node.shape(), True, mask)]


def _drops(node: Node) -> bool:
    ratio = node.constant(1)
    return not node.has(1) or ratio is None or ratio.item() > 0


CONVERTERS: dict[str, Converter] = {
    "Clip": _clip,
    "Dropout": _dropout,
    "PRelu": _prelu,
    "Where": _where,
}

"""Softmax and LogSoftmax, along one axis or, up to opset 12, over all from one to the last."""

from __future__ import annotations

import math
from typing import Any

from edgepack.compiler.frontend.converters.values import cast, reshaped, widened
from edgepack.compiler.frontend.node import Converter, Node

DOMAIN = ""


def _converter(operator: str) -> Converter:
    def convert(node: Node) -> Any:
        from tvm import relax

        shape, old = node.shape(), node.opset < 13
        axis = node.attributes.get("axis", 1 if old else -1)
        axis = axis % len(shape) if axis != len(shape) else axis
        data = widened(node, node.inputs[0])
        # Where all axes but one have extent 1, those from `axis` on are that one.
        wide = [place for place in range(axis, len(shape)) if shape[place] != 1]
        if old and len(wide) > 1:
            data = node.emit(reshaped(data, [*shape[:axis], math.prod(shape[axis:])]))
        elif old and wide:
            (axis,) = wide
        elif old:
            axis = len(shape) - 1
        result = node.emit(getattr(relax.op.nn, operator)(data, axis))
        if old and len(wide) > 1:
            result = node.emit(reshaped(result, shape))
        return cast(result, node.dtype())

    return convert


CONVERTERS: dict[str, Converter] = {
    "LogSoftmax": _converter("log_softmax"),
    "Softmax": _converter("softmax"),
}

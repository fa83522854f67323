"""The place of the largest and the smallest: ArgMax, ArgMin, Hardmax.

As two reductions that vectorise: the extreme first, then the first or last place that holds it. Of
NaN, no place holds it; the result is then the nearest place there is.
"""

from __future__ import annotations

import math
from typing import Any

from edgepack.compiler.frontend.converters.values import along, cast, reshaped, widened
from edgepack.compiler.frontend.node import Converter, Node, constant, dtype_of, shape_of

DOMAIN = ""


def _arg_max(node: Node) -> Any:
    return _place_of_extreme(node, "max")


def _arg_min(node: Node) -> Any:
    return _place_of_extreme(node, "min")


def _place_of_extreme(node: Node, operator: str) -> Any:
    axis = node.attributes.get("axis", 0) % max(len(node.shape()), 1)
    last = bool(node.attributes.get("select_last_index", 0))
    if not node.shape():
        return constant(0, "int64")
    keep = bool(node.attributes.get("keepdims", 1))
    return cast(_place(node, _ordered(node), operator, axis, last=last, keep=keep), "int64")


def _ordered(node: Node) -> Any:
    """The data in a type whose values Relax can order."""
    data = widened(node, node.inputs[0])
    return node.emit(cast(data, "uint8")) if dtype_of(data) == "bool" else data


def _place(node: Node, data: Any, operator: str, axis: int, *, last: bool, keep: bool) -> Any:
    """The first or last place of the extreme along ``axis``, as int32."""
    import numpy as np
    from tvm import relax

    shape = shape_of(data)
    extent = shape[axis]
    places = along(constant(np.arange(extent), "int32"), axis, len(shape))
    extreme = node.emit(getattr(relax.op, operator)(data, [axis], keepdims=True))
    holds = node.emit(relax.op.equal(data, extreme))
    nowhere = constant(0 if last else extent - 1, "int32")
    candidates = node.emit(relax.op.where(holds, places, nowhere))
    choose = relax.op.max if last else relax.op.min
    return node.emit(choose(candidates, [axis], keepdims=keep))


def _hardmax(node: Node) -> Any:
    """1 at the first of the largest, 0 elsewhere; up to opset 12 over all axes from the given one."""
    import numpy as np
    from tvm import relax

    shape, old = node.shape(), node.opset < 13
    rank = max(len(shape), 1)
    axis = node.attributes.get("axis", 1 if old else -1) % rank
    data = _ordered(node)
    if old:
        data = node.emit(reshaped(data, [math.prod(shape[:axis]), math.prod(shape[axis:])]))
        axis = 1
    seen = shape_of(data)
    place = _place(node, data, "max", axis, last=False, keep=True)
    places = along(constant(np.arange(seen[axis]), "int32"), axis, len(seen))
    chosen = node.emit(relax.op.equal(places, place))
    return reshaped(node.emit(cast(chosen, node.dtype())), shape)


CONVERTERS: dict[str, Converter] = {
    "ArgMax": _arg_max,
    "ArgMin": _arg_min,
    "Hardmax": _hardmax,
}

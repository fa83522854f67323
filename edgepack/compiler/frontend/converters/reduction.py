"""ReduceSum and its kin: over axes that are an attribute in old opsets and an input in new ones.

16-bit types are summed in float32. Integers are averaged and rooted as ONNX Runtime does: cut off
towards zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from edgepack.compiler.frontend.converters.arithmetic import divided
from edgepack.compiler.frontend.converters.values import cast, filled, reshaped, widened
from edgepack.compiler.frontend.node import Converter, Node, constant, dtype_of, shape_of

DOMAIN = ""

Step = Callable[[Node, Any], Any]
"""What is done to every element, before or after."""


@dataclass(frozen=True, kw_only=True)
class _Reduction:
    """``after(operator over axes of before(x))``; ``empty`` is what no elements give."""

    operator: str
    empty: float
    before: Step | None = None
    after: Step | None = None


def _squared(node: Node, x: Any) -> Any:
    from tvm import relax

    return node.emit(relax.op.multiply(x, x))


def _absolute(node: Node, x: Any) -> Any:
    from tvm import relax

    return x if dtype_of(x).startswith("uint") else node.emit(relax.op.abs(x))


def _in_floats(operator: str) -> Step:
    """A function of a floating-point number; of an integer, by way of float64."""

    def step(node: Node, x: Any) -> Any:
        from tvm import relax

        dtype = dtype_of(x)
        if dtype.startswith("float"):
            return node.emit(getattr(relax.op, operator)(x))
        wide = node.emit(cast(x, "float64"))
        return node.emit(cast(node.emit(getattr(relax.op, operator)(wide)), dtype))

    return step


_REDUCTIONS: Mapping[str, _Reduction] = {
    "ReduceL1": _Reduction(operator="sum", empty=0, before=_absolute),
    "ReduceL2": _Reduction(operator="sum", empty=0, before=_squared, after=_in_floats("sqrt")),
    "ReduceLogSum": _Reduction(operator="sum", empty=-math.inf, after=_in_floats("log")),
    "ReduceMax": _Reduction(operator="max", empty=-math.inf),
    "ReduceMin": _Reduction(operator="min", empty=math.inf),
    "ReduceProd": _Reduction(operator="prod", empty=1),
    "ReduceSum": _Reduction(operator="sum", empty=0),
    "ReduceSumSquare": _Reduction(operator="sum", empty=0, before=_squared),
}


def _converter(reduction: _Reduction) -> Converter:
    def convert(node: Node) -> Any:
        if math.prod(node.shape()) == 0:
            return _of_nothing(node, reduction.empty)
        axes, data = reduced_axes(node), widened(node, node.inputs[0])
        if dtype_of(data) == "bool":
            data = node.emit(cast(data, "uint8"))
        if reduction.before is not None:
            data = reduction.before(node, data)
        data = _reduced(node, reduction.operator, data, axes)
        if reduction.after is not None:
            data = reduction.after(node, data)
        return cast(data, node.dtype())

    return convert


def reduced_axes(node: Node) -> list[int]:
    """The axes that the node reduces, in order, none twice; all where it names none."""
    rank = len(node.shape())
    given = node.attributes.get("axes")
    if node.has(1):
        given = node.known(1, "axes").reshape(-1).tolist()
    if given:
        return sorted({int(axis) % rank for axis in given})
    return [] if node.attributes.get("noop_with_empty_axes", 0) else list(range(rank))


def _reduced(node: Node, operator: str, data: Any, axes: list[int]) -> Any:
    """``data`` reduced over ``axes``, which keep extent 1 where the node says so."""
    from tvm import relax

    if not axes:
        return data
    keep = bool(node.attributes.get("keepdims", 1))
    return node.emit(getattr(relax.op, operator)(data, axes, keepdims=keep))


def _of_nothing(node: Node, value: float) -> Any:
    """Of no elements, which only an empty tensor has; integers have no infinity but their ends."""
    import numpy as np

    dtype = node.dtype()
    if dtype == "bool":
        value = value > 0
    elif not dtype.startswith("float") and math.isinf(value):
        ends = np.iinfo(dtype)
        value = ends.max if value > 0 else ends.min
    return filled(node.outputs[0].shape, value, dtype)


def _mean(node: Node) -> Any:
    axes, shape, dtype = reduced_axes(node), node.shape(), node.dtype()
    if math.prod(shape) == 0:
        return _of_nothing(node, math.nan)
    data = widened(node, node.inputs[0])
    if dtype_of(data).startswith("float"):
        return cast(_reduced(node, "mean", data, axes), dtype)
    total = _reduced(node, "sum", data, axes)
    count = math.prod(shape[axis] for axis in axes)
    return divided(node, total, constant(count, dtype))


def _log_sum_exp(node: Node) -> Any:
    """Less the largest first, so that nothing overflows; an infinite largest is left where it is."""
    from tvm import relax

    dtype, axes = node.dtype(), reduced_axes(node)
    if math.prod(node.shape()) == 0:
        return _of_nothing(node, -math.inf)
    data = widened(node, node.inputs[0])
    if not dtype_of(data).startswith("float"):
        data = node.emit(cast(data, "float64"))
    if not axes:
        return cast(data, dtype)
    largest = node.emit(relax.op.max(data, axes, keepdims=True))
    finite = node.emit(relax.op.isfinite(largest))
    zero = constant(0, dtype_of(data))
    largest = node.emit(relax.op.where(finite, largest, zero))
    powers = node.emit(relax.op.exp(node.emit(relax.op.subtract(data, largest))))
    total = node.emit(relax.op.sum(powers, axes, keepdims=True))
    result = node.emit(relax.op.add(node.emit(relax.op.log(total)), largest))
    shape = node.outputs[0].shape
    result = result if shape_of(result) == shape else node.emit(reshaped(result, shape))
    return cast(result, dtype)


CONVERTERS: dict[str, Converter] = {
    **{operator: _converter(reduction) for operator, reduction in _REDUCTIONS.items()},
    "ReduceLogSumExp": _log_sum_exp,
    "ReduceMean": _mean,
}

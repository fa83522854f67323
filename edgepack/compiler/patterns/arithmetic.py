"""Arithmetic with an operand that does nothing, or that a cheaper operator does exactly as well."""

from __future__ import annotations

import math
from functools import reduce
from typing import Any

from edgepack.compiler.patterns.graph import (
    Graph,
    Pattern,
    dtype_of,
    scalar,
    shape_of,
    times_inverse,
)

_STACKED = {"max": "maximum", "min": "minimum", "sum": "add", "mean": "add"}
_BROADCASTING = {
    "add", "subtract", "multiply", "divide", "power", "maximum", "minimum", "where", "equal",
    "less", "less_equal", "greater", "greater_equal", "logical_and", "logical_or",
}  # fmt: skip


def _neutral(graph: Graph, call: Any) -> Any:
    """x * 1, x / 1, x - 0; not x + 0, which makes -0 into 0, unless what is added is -0."""
    name = call.op.name.removeprefix("relax.")
    sides = graph.both_ways(call, name) if name in ("add", "multiply") else []
    if name in ("subtract", "divide"):
        sides = [(call.args[0], call.args[1])]
    for data, other in sides:
        value = scalar(other)
        if value is None or shape_of(data) != shape_of(call) or dtype_of(data) != dtype_of(call):
            continue
        if _is_neutral(name, value, dtype_of(data)):
            return data
    return None


def _there_and_back(graph: Graph, call: Any) -> Any:
    """A reshape of a reshape that ends in the shape it began with."""
    outer = graph.call(call, "reshape")
    inner = graph.call(call.args[0], "reshape") if outer is not None else None
    if inner is None or shape_of(inner.args[0]) is None:
        return None
    return inner.args[0] if shape_of(inner.args[0]) == shape_of(call) else None


def _is_neutral(name: str, value: float, dtype: str) -> bool:
    if name in ("multiply", "divide"):
        return value == 1
    signed_zero = value == 0 and dtype.startswith(("float", "bfloat"))
    if not signed_zero:
        return value == 0
    return math.copysign(1, value) == (-1 if name == "add" else 1)


def _exact_division(graph: Graph, call: Any) -> Any:
    """Division by a power of two is multiplication by its inverse, to the last bit."""
    if graph.call(call, "divide") is None or dtype_of(call) not in ("float32", "float64"):
        return None
    value = scalar(call.args[1])
    if value is None or not math.isfinite(value) or abs(math.frexp(value)[0]) != 0.5:
        return None
    if not 2.0**-100 <= abs(value) <= 2.0**100:  # beyond, the inverse may be subnormal
        return None
    return times_inverse(call)


def _whole_power(graph: Graph, call: Any) -> Any:
    """x to the power of 1, 2 or 3 without a logarithm."""
    from tvm import relax

    if graph.call(call, "power") is None or not dtype_of(call).startswith("float"):
        return None
    data, exponent = call.args[0], scalar(call.args[1])
    if shape_of(data) != shape_of(call) or exponent not in (1, 2, 3):
        return None
    if exponent == 1:
        return data
    square = relax.op.multiply(data, data)
    return square if exponent == 2 else relax.op.multiply(graph.emit(square), data)


def _clip(graph: Graph, call: Any) -> Any:
    """The smaller of the larger, both of constants; in order, as `clip` takes the upper bound first."""
    from tvm import relax

    outer = graph.with_scalar(call, "minimum")
    inner = graph.with_scalar(outer[0], "maximum") if outer is not None else None
    if outer is None or inner is None or not inner[1] <= outer[1]:
        return None
    return relax.op.clip(inner[0], inner[1], outer[1])


def _stacked(graph: Graph, call: Any) -> Any:
    """Max, Min, Sum and Mean of several tensors, which the importer stacks and reduces."""
    from tvm import relax

    name = call.op.name.removeprefix("relax.")
    stack = graph.call(call.args[0], "stack") if name in _STACKED else None
    if stack is None or stack.attrs.axis is None or call.attrs.keepdims:
        return None
    if int(stack.attrs.axis) != 0 or [int(a) for a in call.attrs.axis or ()] != [0]:
        return None
    operator = getattr(relax.op, _STACKED[name])
    tensors = list(stack.args[0].fields)
    *first, last = tensors
    if not first:
        return last
    left = reduce(lambda a, b: graph.emit(operator(a, b)), first)
    if name != "mean":
        return operator(left, last)
    count = relax.const(len(tensors), dtype_of(call))
    return relax.op.divide(graph.emit(operator(left, last)), count)


def _broadcast_operand(graph: Graph, call: Any) -> Any:
    """An operand that is repeated first: these operators repeat it themselves, and store nothing."""
    from tvm import ir

    if call.op.name.removeprefix("relax.") not in _BROADCASTING:
        return None
    for index, operand in enumerate(call.args):
        repeat = graph.call(operand, "broadcast_to")
        if repeat is None:
            continue
        operands = [*call.args[:index], repeat.args[0], *call.args[index + 1 :]]
        smaller = graph.typed(ir.Call(call.op, operands, call.attrs, call.ty_args))
        if shape_of(smaller) == shape_of(call) is not None:
            return smaller
    return None


PATTERNS: tuple[Pattern, ...] = (
    _there_and_back,
    _stacked,
    _broadcast_operand,
    _neutral,
    _exact_division,
    _whole_power,
    _clip,
)

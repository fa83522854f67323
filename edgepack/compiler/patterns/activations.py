"""GELU, SiLU and hard-swish, told by their formulas whatever the order of the factors."""

from __future__ import annotations

import math
from typing import Any

from edgepack.compiler.patterns.graph import (
    Graph,
    Pattern,
    dtype_of,
    scalar,
    shape_of,
    times_inverse,
)

_TOLERANCE = 1e-6
"""Relative; of constants that an exporter has rounded to single precision."""

_DEPTH = 8
"""How many operators a formula may be deep: it is looked at once for every product of the model."""

Polynomial = dict[int, float]


def _gelu(graph: Graph, call: Any) -> Any:
    """x / 2 * (1 + erf(x / sqrt(2)))."""
    from tvm import relax

    data = _gated(graph, call, "erf", {1: math.sqrt(0.5)})
    return None if data is None else relax.op.nn.gelu(data)


def _gelu_tanh(graph: Graph, call: Any) -> Any:
    """x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3)))."""
    from tvm import relax

    slope = math.sqrt(2 / math.pi)
    data = _gated(graph, call, "tanh", {1: slope, 3: 0.044715 * slope})
    return None if data is None else relax.op.nn.gelu_tanh(data)


def _silu(graph: Graph, call: Any) -> Any:
    from tvm import relax

    for data, other in graph.both_ways(call, "multiply"):
        sigmoid = graph.call(other, "sigmoid")
        if sigmoid is not None and sigmoid.args[0].same_as(data):
            return relax.op.nn.silu(data)
    return None


def _hard_sigmoid(graph: Graph, call: Any) -> Any:
    """clip(x, 0, c) / c, or a product with it: times 1 / c, as a vector takes up to 36 cycles to divide.

    Other divisions stay, as of what is rounded next (QuantizeLinear's) the last bit can make an integer.
    """
    if graph.call(call, "divide") is None or dtype_of(call) != "float32":
        return None
    above, below = call.args
    end = scalar(below)
    product = graph.operands(above, "multiply") or ()
    if end is None or not any(_is_clipped(graph, part, end) for part in (above, *product)):
        return None
    return times_inverse(call)


def _is_clipped(graph: Graph, data: Any, end: float) -> bool:
    """Whether ``data`` is cut to 0 and ``end``."""
    clip = graph.call(data, "clip")
    return clip is not None and end > 0 and [float(x.value) for x in clip.args[1:]] == [0, end]


def _gated(graph: Graph, call: Any, name: str, argument: Polynomial) -> Any:
    """x of ``call``, if it is x / 2 * (1 + name(argument(x)))."""
    if graph.call(call, "multiply", "divide") is None or not dtype_of(call).startswith("float"):
        return None
    scale, factors = _product(graph, call, _DEPTH)
    if len(factors) != 2 or not math.isclose(scale, 0.5, rel_tol=_TOLERANCE):
        return None
    for data, gate in (factors, factors[::-1]):
        shifted = graph.with_scalar(gate, "add")
        if shifted is None or shifted[1] != 1 or shape_of(data) != shape_of(call):
            continue
        inner = graph.call(shifted[0], name)
        if inner is not None and _is_polynomial(graph, inner.args[0], data, argument):
            return data
    return None


def _product(graph: Graph, expression: Any, depth: int) -> tuple[float, list[Any]]:
    """The constant factor of nested products, and the other factors."""
    value = scalar(expression)
    if value is not None:
        return value, []
    found = graph.operands(expression, "multiply") if depth else None
    if found is not None:
        left, right = (_product(graph, operand, depth - 1) for operand in found)
        return left[0] * right[0], left[1] + right[1]
    found = graph.operands(expression, "divide") if depth else None
    if found is not None and (divisor := scalar(found[1])):
        scale, factors = _product(graph, found[0], depth - 1)
        return scale / divisor, factors
    return 1.0, [expression]


def _is_polynomial(graph: Graph, expression: Any, data: Any, wanted: Polynomial) -> bool:
    found = _polynomial(graph, expression, data, _DEPTH)
    if found is None or found.keys() != wanted.keys():
        return False
    return all(math.isclose(found[k], wanted[k], rel_tol=_TOLERANCE) for k in wanted)


def _polynomial(graph: Graph, expression: Any, data: Any, depth: int) -> Polynomial | None:
    """The coefficients of ``expression`` by their powers of ``data``; None if it is no polynomial."""
    if expression.same_as(data):
        return {1: 1.0}
    value = scalar(expression)
    if value is not None:
        return {0: value}
    call = graph.call(expression, "add", "multiply", "divide") if depth else None
    if call is None:
        return None
    left, right = (_polynomial(graph, operand, data, depth - 1) for operand in call.args)
    if left is None or right is None:
        return None
    if call.op.name == "relax.add":
        return {k: left.get(k, 0.0) + right.get(k, 0.0) for k in left.keys() | right.keys()}
    if call.op.name == "relax.divide":
        if right.keys() != {0} or right[0] == 0:
            return None
        right = {0: 1 / right[0]}
    product: Polynomial = {}
    for i, a in left.items():
        for j, b in right.items():
            product[i + j] = product.get(i + j, 0.0) + a * b
    return product


PATTERNS: tuple[Pattern, ...] = (_gelu, _gelu_tanh, _silu, _hard_sigmoid)

"""Computations with sizes: shapes that a model takes apart and puts together again.

Each node stays, as its result may be used as a number. What is followed beside it is which sizes its
elements are, so that a Reshape or an Expand after it is understood.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from edgepack.importers.bounded.nodes import attribute
from edgepack.importers.bounded.sizes import Size, fixed, product
from edgepack.importers.bounded.walk import Rule, Walk

if TYPE_CHECKING:
    import onnx

Value = Size | None
Values = list[Value]


def _shape(walk: Walk, node: onnx.NodeProto) -> None:
    sizes = list(walk.tensor(node.input[0]).sizes)
    first, last = attribute(node, "start", 0), attribute(node, "end", len(sizes))
    walk.vector(sizes[first:last], node.output[0])


def _size(walk: Walk, node: onnx.NodeProto) -> None:
    total = product(walk.tensor(node.input[0]).sizes).size
    if total is None:
        raise walk.refuse(node, "it multiplies two such numbers")
    walk.emit("Identity", [walk.scalar(total)], output=node.output[0])


def values_rule(find: Callable[[Walk, onnx.NodeProto], Values | None]) -> Rule:
    """The rule of an operator whose elements ``find`` follows; None where it cannot."""

    def rule(walk: Walk, node: onnx.NodeProto) -> None:
        walk.keep(node, values=find(walk, node))

    return rule


def _of(walk: Walk, name: str) -> Values | None:
    found = walk.tensor(name).values
    return None if found is None else list(found)


def _same(walk: Walk, node: onnx.NodeProto) -> Values | None:
    """The elements of the first input: their order stays in a scalar or vector."""
    return _of(walk, node.input[0])


def _cast(walk: Walk, node: onnx.NodeProto) -> Values | None:
    import onnx

    integers = (onnx.TensorProto.INT64, onnx.TensorProto.INT32)
    return _of(walk, node.input[0]) if attribute(node, "to") in integers else None


def _picked(walk: Walk, node: onnx.NodeProto) -> Values | None:
    values, indices = _of(walk, node.input[0]), walk.numbers(node.input[1])
    if values is None or indices is None:
        return None
    return [values[i] for i in indices]


def _joined(walk: Walk, node: onnx.NodeProto) -> Values | None:
    parts = [_of(walk, name) for name in node.input]
    if any(part is None for part in parts):
        return None
    return [value for part in parts for value in part or ()]


def _cut(walk: Walk, node: onnx.NodeProto) -> Values | None:
    values = _of(walk, node.input[0])
    if len(node.input) < _SLICE_INPUTS or values is None:
        return None
    numbers = [walk.numbers(name) if name else None for name in node.input[1:]]
    starts, ends = numbers[:2]
    steps = numbers[3] if len(numbers) > _SLICE_INPUTS else [1]
    if not starts or not ends or not steps:
        return None
    return values[starts[0] : ends[0] : steps[0]]


_SLICE_INPUTS = 3


def _elementwise(
    compute: Callable[[Walk, onnx.NodeProto, Sequence[Value]], Value],
    walk: Walk,
    node: onnx.NodeProto,
) -> Values | None:
    operands = [_of(walk, name) for name in node.input]
    if any(not operand for operand in operands):
        return None
    lists = [operand for operand in operands if operand]
    length = max(map(len, lists))
    if any(len(values) not in (1, length) for values in lists):
        return None
    return [
        compute(walk, node, [values[i if len(values) > 1 else 0] for values in lists])
        for i in range(length)
    ]


def _arithmetic(
    combine: Callable[[Size, Size], Value], walk: Walk, node: onnx.NodeProto, given: Sequence[Value]
) -> Value:
    result: Value = given[0]
    for value in given[1:]:
        if result is None or value is None:
            return None
        result = combine(result, value)
    return result


def _times(first: Size, second: Size) -> Value:
    if first.is_fixed:
        return second.times(first.constant)
    return first.times(second.constant) if second.is_fixed else None


def _quotient(first: Size, second: Size) -> Value:
    return first.divided(second.constant) if second.is_fixed else None


def _negative(walk: Walk, node: onnx.NodeProto, given: Sequence[Value]) -> Value:
    return None if given[0] is None else given[0].times(-1)


def _least(walk: Walk, node: onnx.NodeProto, given: Sequence[Value]) -> Value:
    return _arithmetic(walk.least_of, walk, node, given)


def _greatest(first: Size, second: Size) -> Value:
    """Followed where it is plain which is greater: a minimum is what models ask for."""
    if first.least >= second.most:
        return first
    return second if second.least >= first.most else None


_COMPARISONS: dict[str, Callable[[int, int], bool]] = {
    "Equal": operator.eq,
    "Greater": operator.gt,
    "GreaterOrEqual": operator.ge,
    "Less": operator.lt,
    "LessOrEqual": operator.le,
}


def _compared(walk: Walk, node: onnx.NodeProto, given: Sequence[Value]) -> Value:
    """0 or 1 where it is the same for every request."""
    if given[0] is None or given[1] is None:
        return None
    difference = given[0].minus(given[1])
    compare = _COMPARISONS[node.op_type]
    ends = {compare(end, 0) for end in (difference.least, difference.most)}
    if node.op_type == "Equal" and not difference.is_fixed and difference.least <= 0:
        ends |= {difference.most >= 0}
    return fixed(ends.pop()) if len(ends) == 1 else None


def _chosen(walk: Walk, node: onnx.NodeProto, given: Sequence[Value]) -> Value:
    condition, first, second = given
    if first == second:
        return first
    if condition is None or not condition.is_fixed:
        return None
    return first if condition.constant else second


def _reduced(
    combine: Callable[[Walk, onnx.NodeProto, Sequence[Value]], Value],
    walk: Walk,
    node: onnx.NodeProto,
) -> Values | None:
    values = _of(walk, node.input[0])
    return [combine(walk, node, values)] if values else None


_sum = partial(_arithmetic, Size.plus)
_product = partial(_arithmetic, _times)

RULES: dict[str, Rule] = {
    "Add": values_rule(partial(_elementwise, _sum)),
    "Cast": values_rule(_cast),
    "Concat": values_rule(_joined),
    "Div": values_rule(partial(_elementwise, partial(_arithmetic, _quotient))),
    "Gather": values_rule(_picked),
    "Identity": values_rule(_same),
    "Max": values_rule(partial(_elementwise, partial(_arithmetic, _greatest))),
    "Min": values_rule(partial(_elementwise, _least)),
    "Mul": values_rule(partial(_elementwise, _product)),
    "Neg": values_rule(partial(_elementwise, _negative)),
    "ReduceMin": values_rule(partial(_reduced, _least)),
    "ReduceProd": values_rule(partial(_reduced, _product)),
    "ReduceSum": values_rule(partial(_reduced, _sum)),
    "Reshape": values_rule(_same),
    "Slice": values_rule(_cut),
    "Squeeze": values_rule(_same),
    "Sub": values_rule(partial(_elementwise, partial(_arithmetic, Size.minus))),
    "Unsqueeze": values_rule(_same),
    "Where": values_rule(partial(_elementwise, _chosen)),
    **dict.fromkeys(_COMPARISONS, values_rule(partial(_elementwise, _compared))),
}
"""By operator of ONNX's own domain, for operands of fixed shape that hold sizes."""

SHAPES: dict[str, Rule] = {"Shape": _shape, "Size": _size}
"""What gives the sizes of a tensor, whatever that is."""

"""TIR expressions as values: find what they load, and write them again with other indices."""

from __future__ import annotations

from collections.abc import Callable, Container, Hashable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from edgepack.compiler.schedules.mathematics import REPLACEMENTS

Load = Callable[[Any, list[Any], bool], Any]
"""(buffer, indices, guarded) to a value; ``guarded``: under a condition that must come first."""


def index(value: int) -> Any:
    """An index: TVM's fused kernels count in int64."""
    from tvm import tirx

    return tirx.IntImm("int64", value)


def same(expression: Any, number: int) -> bool:
    """Whether ``expression`` is the literal ``number``."""
    from tvm import tirx

    return isinstance(expression, tirx.IntImm) and int(expression.value) == number


def simplified(expression: Any) -> Any:
    """The expression in TVM's canonical form."""
    from tvm import sym

    return sym.Analyzer().simplify(expression)


def children(expression: Any) -> tuple[Any, ...]:
    """The direct subexpressions, in order of evaluation."""
    kind: Any = type(expression)
    single = tuple(getattr(expression, name) for name in _fields(kind))
    return single or tuple(getattr(expression, _several(kind), ()))


@cache
def _fields(kind: Hashable) -> tuple[str, ...]:
    """The attributes of a node type that hold one subexpression each."""
    from tvm import tirx

    if kind is tirx.Select:
        return ("condition", "true_value", "false_value")
    if kind is tirx.Cast:
        return ("value",)
    if kind is tirx.Not:
        return ("a",)
    if kind is tirx.Let:
        return ("value", "body")
    return ("a", "b") if hasattr(kind, "a") and hasattr(kind, "b") else ()


@cache
def _several(kind: Hashable) -> str:
    """The attribute of a node type that holds all its subexpressions."""
    from tvm import ir

    return {ir.TensorLoad: "indices", ir.Call: "args"}.get(kind, "_none")


def visit(expression: Any) -> Iterator[Any]:
    """The expression and everything in it."""
    stack = [expression]
    while stack:
        node = stack.pop()
        yield node
        stack.extend(reversed(children(node)))


def loads(expression: Any) -> list[Any]:
    """Every load, in order of evaluation."""
    from tvm import ir

    return [node for node in visit(expression) if isinstance(node, ir.TensorLoad)]


def uses(expression: Any, variable: Any) -> bool:
    """Whether ``variable`` occurs in the expression."""
    return any(node.same_as(variable) for node in visit(expression))


def rebuild(
    expression: Any,
    variables: Mapping[Any, Any],
    load: Load,
    guarded: bool = False,
    replacing: bool = True,
) -> Any:
    """The expression with ``variables`` replaced and every load made anew by ``load``.

    Elementary functions become arithmetic that vectorises (mathematics.py), unless the expression is
    only to be looked at (``replacing`` false).
    """
    from tvm import ir, tirx

    def again(child: Any, under_condition: bool = guarded) -> Any:
        return rebuild(child, variables, load, under_condition, replacing)

    if isinstance(expression, tirx.Var):
        return variables.get(expression, expression)
    if isinstance(expression, ir.TensorLoad):
        where = [_as_index(again(i)) for i in expression.indices]
        return load(expression.source, where, guarded)
    if isinstance(expression, ir.Call):
        return _call(expression, again, replacing)
    if isinstance(expression, tirx.Select):
        condition = again(expression.condition)
        return tirx.Select(condition, again(expression.true_value), again(expression.false_value))
    if isinstance(expression, tirx.Cast):
        return tirx.Cast(expression.ty, again(expression.value))
    if isinstance(expression, tirx.Not):
        return tirx.Not(again(expression.a))
    if hasattr(expression, "a") and hasattr(expression, "b"):
        return _binary(type(expression), again(expression.a), again(expression.b))
    return expression


def _as_index(at: Any) -> Any:
    """``at``, whose type TVM leaves at int32 where it is the literal 0 of an axis of one element."""
    from tvm import tirx

    return index(int(at.value)) if isinstance(at, tirx.IntImm) else at


def _binary(kind: Any, left: Any, right: Any) -> Any:
    from tvm import tirx

    if kind in (tirx.EQ, tirx.NE) and "bool" in str(left.ty):  # LLVM has no vector form of these
        left, right = tirx.Cast("int8", left), tirx.Cast("int8", right)
    return kind(left, right)


def has_functions(expression: Any) -> bool:
    """Whether the expression calls an elementary function, which becomes much arithmetic."""
    return calls(expression, REPLACEMENTS)


def calls(expression: Any, operators: Container[str]) -> bool:
    """Whether the expression calls one of ``operators``, by TIR's names."""
    from tvm import ir

    return any(
        isinstance(node, ir.Call) and node.op.name in operators for node in visit(expression)
    )


def _call(call: Any, again: Callable[..., Any], replacing: bool) -> Any:
    from tvm import ir

    name = getattr(call.op, "name", "")
    if name == "prim.if_then_else":
        condition, *arms = call.args
        arguments = [again(condition), *(again(arm, True) for arm in arms)]
    else:
        arguments = [again(argument) for argument in call.args]
    replacement = REPLACEMENTS.get(name)
    if replacing and replacement is not None:
        value = replacement(*arguments)
        if value is not None:
            return value
    return ir.Call(call.op, arguments, call.attrs, call.ty_args, ret_ty=call.ty)


def flat_index(shape: Sequence[int], indices: Sequence[Any]) -> Any:
    """The row-major position of ``indices`` in a dense tensor of ``shape``, as an index."""
    position = index(0)
    for extent, part in zip(shape, indices, strict=True):
        position = position * index(extent) + part
    return position


def is_cheap(expression: Any) -> bool:
    """Whether computing it twice costs less than writing it to memory and reading it back.

    No elementary functions and no division, and a handful of operations on the values; index
    arithmetic is not counted.
    """
    from tvm import ir, tirx

    cost = 0
    stack = [expression]
    while stack:
        node = stack.pop()
        if isinstance(node, ir.TensorLoad):
            cost += 1
            continue
        if isinstance(node, ir.Call) and node.op.name != "prim.if_then_else":
            return False
        if isinstance(node, tirx.Div):
            return False
        if isinstance(node, ir.Call):
            stack.extend(node.args[1:])
            cost += 1
            continue
        found = children(node)
        cost += bool(found)
        stack.extend(found)
    return cost <= 6


def is_movement(expression: Any) -> bool:
    """Whether the expression only moves an element: a transposition, a slice, a reshape."""
    from tvm import ir

    return isinstance(expression, ir.TensorLoad)


def self_update(stage_buffer: Any, value: Any) -> tuple[Any, Any] | None:
    """(combining node, term) of a reduction's update ``buffer ⊕ term``; None if it has another form."""
    from tvm import ir, tirx

    if not isinstance(value, (tirx.Add, tirx.Mul, tirx.Max, tirx.Min)):
        return None
    first = value.a
    if not isinstance(first, ir.TensorLoad) or not first.source.same_as(stage_buffer):
        return None
    if any(load.source.same_as(stage_buffer) for load in loads(value.b)):
        return None
    return value, value.b

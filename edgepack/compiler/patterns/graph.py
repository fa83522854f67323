"""The walk over ``main``, and what a pattern may ask about the graph before it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from edgepack.compiler.graph import bindings_of, emitted_anew

if TYPE_CHECKING:
    from tvm.ir import IRModule

Shape = tuple[int, ...]

Pattern = Callable[["Graph", Any], Any]
"""Given a call whose operands are bound: an equal expression, or None where it does not apply."""


def rewritten(module: IRModule, patterns: Sequence[Pattern]) -> IRModule:
    """``module`` with the calls of ``main`` replaced by ``patterns``, and the dead ones removed."""
    bindings = bindings_of(module["main"])
    if not all(is_plain(binding) for binding in bindings):
        return module

    def emit(builder: Any, main: Any) -> Any:
        graph = Graph(builder, module, patterns)
        for binding in bindings:
            graph.add(binding)
        return graph.renamed(main.body.body)

    return emitted_anew(module, emit)


def shape_of(expression: Any) -> Shape | None:
    """The static shape of a tensor; None if it is none, or not known."""
    shape = getattr(getattr(expression, "ty", None), "shape", None)
    try:
        return tuple(int(extent) for extent in shape.values) if shape is not None else None
    except (AttributeError, TypeError, ValueError):
        return None


def scalar(expression: Any) -> float | None:
    """The value of a constant with one element."""
    from tvm import ir

    if not isinstance(expression, ir.GenericConst):
        return None
    array = expression.value.numpy()
    return array.reshape(-1)[0].item() if array.size == 1 else None


def times_inverse(division: Any) -> Any:
    """A division by a constant as a multiplication, which may round differently."""
    from tvm import relax

    data, constant = division.args
    dtype = dtype_of(division)
    inverse = (1 / constant.value.numpy()).astype(dtype)
    return relax.op.multiply(data, relax.const(inverse, dtype))


def dtype_of(expression: Any) -> str:
    """The element type of a tensor; empty for what is none."""
    return str(getattr(expression.ty, "dtype", ""))


def operator_of(expression: Any) -> str:
    """The operator that a call calls, without "relax."; empty for what is no such call."""
    from tvm import ir

    is_call = isinstance(expression, ir.Call) and isinstance(expression.op, ir.Op)
    return expression.op.name.removeprefix("relax.") if is_call else ""


class Graph:
    """The new ``main`` so far."""

    def __init__(self, builder: Any, module: IRModule, patterns: Sequence[Pattern]) -> None:
        self.module = module
        self._builder = builder
        self._patterns = patterns
        self._definitions: dict[Any, Any] = {}
        self._renamed: dict[Any, Any] = {}

    def emit(self, expression: Any) -> Any:
        """A variable or a constant for ``expression``, or for what the patterns make of it."""
        from tvm import ir

        if isinstance(expression, ir.Call):
            expression = self.typed(expression)
        while isinstance(expression, ir.Call) and isinstance(expression.op, ir.Op):
            replaced = self._replaced(expression)
            if replaced is None:
                break
            expression = self.typed(replaced) if isinstance(replaced, ir.Call) else replaced
        if isinstance(expression, (ir.Var, ir.GenericConst)):
            return expression
        variable = self._builder.emit(expression)
        self._definitions[variable] = expression
        return variable

    def typed(self, call: Any) -> Any:
        """``call`` with the type of its result, which a call has only once it is normalised."""
        return self._builder.normalize(call)

    def add(self, binding: Any, instead: Any = None) -> None:
        """Emit one binding of the old ``main``, or ``instead`` of its value."""
        value = self.renamed(binding.value) if instead is None else instead
        self._renamed[binding.var] = self.emit(value)

    def renamed(self, expression: Any) -> Any:
        """An expression of the old ``main`` in terms of the new one's variables."""
        from tvm import ir

        if isinstance(expression, ir.Var):
            return self._renamed.get(expression, expression)
        if isinstance(expression, ir.Tuple):
            return ir.Tuple([self.renamed(field) for field in expression.fields])
        if isinstance(expression, ir.TupleGetItem):
            return ir.TupleGetItem(self.renamed(expression.tuple_value), expression.index)
        if isinstance(expression, ir.Call):
            operands = [self.renamed(operand) for operand in expression.args]
            return ir.Call(expression.op, operands, expression.attrs, expression.ty_args)
        return expression

    def call(self, expression: Any, *names: str) -> Any:
        """The call that computes ``expression``, if it is of one of the operators ``names``."""
        from tvm import ir

        found = expression
        if isinstance(expression, ir.Var):
            found = self._definitions.get(expression)
        return found if operator_of(found) in names else None

    def operands(self, expression: Any, name: str) -> tuple[Any, Any] | None:
        """Both operands of the ``name`` call that computes ``expression``."""
        call = self.call(expression, name)
        return None if call is None else (call.args[0], call.args[1])

    def with_scalar(self, expression: Any, name: str) -> tuple[Any, float] | None:
        """The operand and the constant of a commutative ``name`` call, whichever side it is on."""
        for data, other in self.both_ways(expression, name):
            if (value := scalar(other)) is not None and shape_of(data) == shape_of(expression):
                return data, value
        return None

    def both_ways(self, expression: Any, name: str) -> list[tuple[Any, Any]]:
        """The operands of a commutative ``name`` call, either way round; empty if it is not one."""
        found = self.operands(expression, name)
        return [] if found is None else [found, found[::-1]]

    def _replaced(self, call: Any) -> Any:
        attempts = (pattern(self, call) for pattern in self._patterns)
        return next((made for made in attempts if made is not None), None)


def is_plain(binding: Any) -> bool:
    """Whether Graph.add() can emit it."""
    from tvm import ir, relax

    plain = (ir.Call, ir.Tuple, ir.TupleGetItem, ir.Var, ir.GenericConst, relax.ShapeExpr)
    return isinstance(binding, relax.VarBinding) and isinstance(binding.value, plain)

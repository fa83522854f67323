"""The walk over ``main``: each binding by the rule of its operator, or else in ONNX's order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from edgepack.compiler.graph import bindings_of, emitted_anew
from edgepack.compiler.layout.tensors import Emitter, Order, Shape, Tensor, shape_of, significant

if TYPE_CHECKING:
    from tvm.ir import IRModule

Value = Any
"""A Tensor, a list of Values for a tuple, or a Relax expression that the pass does not follow."""

Rule = Callable[["Rewriter", Any], "Tensor | list[Tensor] | None"]
"""Emits a call anew; None where it does not apply to this call."""


def rewritten(module: IRModule, rules: Mapping[str, Rule]) -> IRModule:
    """``module`` with the bindings of ``main`` emitted anew by ``rules``.

    A ``main`` with branches or with checks of shapes is left as it is.
    """
    bindings = bindings_of(module["main"])
    if not all(_is_followed(binding) for binding in bindings):
        return module

    def emit(builder: Any, main: Any) -> Any:
        rewriter = Rewriter(builder, rules)
        for parameter in main.params:
            rewriter.define(parameter, parameter)
        for binding in bindings:
            rewriter.rewrite(binding)
        return rewriter.original(main.body.body)

    return emitted_anew(module, emit)


class Rewriter:
    """What each variable of the old ``main`` is in the new one."""

    def __init__(self, builder: Any, rules: Mapping[str, Rule]) -> None:
        self.emitter = Emitter(builder)
        self._rules = rules
        self._values: dict[Any, Value] = {}

    def define(self, variable: Any, expression: Any) -> None:
        """``variable`` is now ``expression``, in ONNX's order."""
        self._values[variable] = self._followed(expression)

    def rewrite(self, binding: Any) -> None:
        """Emit one binding of the old ``main``."""
        from tvm import ir

        value = binding.value
        if isinstance(value, ir.Call):
            known = self._by_rule(value)
            if known is None:
                known = self._followed(self.emitter.emit(self._with_original_operands(value)))
            self._values[binding.var] = known
        else:
            self._values[binding.var] = self.value(value)

    def value(self, expression: Any) -> Value:
        """What an expression of the old ``main`` is now."""
        from tvm import ir

        if isinstance(expression, ir.Var):
            return self._values.get(expression, expression)
        if isinstance(expression, ir.Tuple):
            return [self.value(field) for field in expression.fields]
        if isinstance(expression, ir.TupleGetItem):
            whole = self.value(expression.tuple_value)
            if isinstance(whole, list):
                return whole[expression.index]
            return self._followed(self.emitter.emit(ir.TupleGetItem(whole, expression.index)))
        if isinstance(expression, ir.GenericConst):
            if expression not in self._values:
                self._values[expression] = self._followed(expression)
            return self._values[expression]
        return expression

    def tensor(self, expression: Any) -> Tensor:
        """As ``value``, of what a rule was given as an operand: a tensor of static shape."""
        value = self.value(expression)
        if not isinstance(value, Tensor):
            raise TypeError(f"not a tensor of static shape: {expression}")
        return value

    def original(self, expression: Any) -> Any:
        """What an expression of the old ``main`` is now, in ONNX's order and shape."""
        return self._materialised(self.value(expression))

    def made(self, call: Any, order: Order, expression: Any) -> Tensor:
        """The result of ``call``, which ``expression`` holds in ``order``."""
        return self.tensor_of(shape_of(call), order, expression)

    def tensor_of(self, shape: Shape, order: Order, expression: Any) -> Tensor:
        """A tensor of ``shape`` that ``expression`` holds in ``order``; emits an unbound expression."""
        from tvm import ir

        if isinstance(expression, ir.Call):
            expression = self.emitter.emit(expression)
        form = {shape_of(expression): expression}
        return Tensor(self.emitter, shape, {significant(order, shape): form})

    def _by_rule(self, call: Any) -> Value | None:
        from tvm import ir

        rule = self._rules.get(call.op.name) if isinstance(call.op, ir.Op) else None
        if rule is None or not has_static_shape(call.ty):
            return None
        if not all(self._is_known(self.value(operand)) for operand in call.args):
            return None
        return rule(self, call)

    def _is_known(self, value: Value) -> bool:
        from tvm import relax

        if isinstance(value, list):
            return all(isinstance(field, Tensor) or not is_tensor(field) for field in value)
        return isinstance(value, Tensor) or not isinstance(
            value.ty, (relax.TensorType, relax.TupleType)
        )

    def _followed(self, expression: Any) -> Value:
        if not is_tensor(expression) or not has_static_shape(expression.ty):
            return expression
        shape = shape_of(expression)
        return self.tensor_of(shape, tuple(range(len(shape))), expression)

    def _with_original_operands(self, call: Any) -> Any:
        from tvm import ir

        operands = [self.original(operand) for operand in call.args]
        return ir.Call(call.op, operands, call.attrs, call.ty_args)

    def _materialised(self, value: Value) -> Any:
        from tvm import relax

        if isinstance(value, Tensor):
            return value.at(value.identity)
        if isinstance(value, list):
            return relax.Tuple([self._materialised(field) for field in value])
        return value


def _is_followed(binding: Any) -> bool:
    from tvm import ir, relax

    followed = (ir.Call, ir.Tuple, ir.TupleGetItem, ir.Var, ir.GenericConst, relax.ShapeExpr)
    return isinstance(binding, relax.VarBinding) and isinstance(binding.value, followed)


def is_tensor(expression: Any) -> bool:
    """Whether a Relax expression is a tensor, of static shape or not."""
    from tvm import relax

    return isinstance(expression.ty, relax.TensorType)


def has_static_shape(tensor_type: Any) -> bool:
    """Whether a tensor's type, or that of every tensor of a tuple, has only known extents."""
    from tvm import relax, tirx

    if isinstance(tensor_type, relax.TupleType):
        return all(has_static_shape(field) for field in tensor_type.fields)
    shape = getattr(tensor_type, "shape", None)
    if not isinstance(tensor_type, relax.TensorType) or not isinstance(shape, relax.ShapeExpr):
        return False
    return all(isinstance(extent, tirx.IntImm) for extent in shape.values)

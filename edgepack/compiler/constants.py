"""What is computed from constants alone, computed here: TVM compiles a kernel for each of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from tvm.ir import IRModule


def fold(module: IRModule) -> IRModule:
    """Replace operators of constants in ``main`` by their result, where numpy has the operator."""
    import numpy as np
    from tvm import ir, relax
    from tvm.relax.expr_functor import PyExprMutator, mutator

    @mutator
    class Folder(PyExprMutator):  # type: ignore[misc]
        def visit_call_(self, call: Any) -> Any:
            call = self.visit_expr_post_order(call)
            compute = _OPERATORS.get(getattr(call.op, "name", ""))
            if compute is None:
                return call
            arguments = [self.constant(argument) for argument in call.args]
            if not arguments or any(argument is None for argument in arguments[: compute.reads]):
                return call
            shape = [int(extent) for extent in call.ty.shape]
            array = compute.function(arguments, call, shape)
            dtype = str(call.ty.dtype)
            return relax.const(np.ascontiguousarray(array, dtype=dtype).reshape(shape), dtype)

        def constant(self, expression: Any) -> np.ndarray | None:
            """The value of a constant, or of a variable bound to one."""
            while isinstance(expression, ir.Var):
                expression = self.lookup_binding(expression)
            if not isinstance(expression, ir.GenericConst):
                return None
            array: np.ndarray = expression.value.numpy()
            return array

    main = Folder(module).visit_expr(module["main"])
    module = ir.IRModule(module.functions)
    module[module.get_global_var("main")] = main
    return module


@dataclass(frozen=True, kw_only=True)
class _Operator:
    """``function(arguments, call, shape)`` gives the result; the first ``reads`` must be constants."""

    reads: int
    function: Callable[[list[Any], Any, list[int]], np.ndarray]


def _view() -> _Operator:
    return _Operator(reads=1, function=lambda arguments, _, shape: arguments[0].reshape(shape))


def _permuted(arguments: list[Any], call: Any, _: list[int]) -> np.ndarray:
    import numpy as np

    axes = call.attrs.axes
    return np.transpose(arguments[0], None if axes is None else [int(axis) for axis in axes])


def _converted(arguments: list[Any], call: Any, _: list[int]) -> np.ndarray:
    import numpy as np

    with np.errstate(all="ignore"):
        array: np.ndarray = arguments[0].astype(str(call.ty.dtype))
    return array


def _elementwise(operator: str, operands: int) -> _Operator:
    """numpy's function of the name ``operator``."""

    def function(arguments: list[Any], *_: Any) -> np.ndarray:
        import numpy as np

        with np.errstate(all="ignore"):
            result: np.ndarray = getattr(np, operator)(*arguments[:operands])
        return result

    return _Operator(reads=operands, function=function)


_OPERATORS: dict[str, _Operator] = {
    "relax.reshape": _view(),
    "relax.expand_dims": _view(),
    "relax.squeeze": _view(),
    "relax.permute_dims": _Operator(reads=1, function=_permuted),
    "relax.astype": _Operator(reads=1, function=_converted),
    "relax.isnan": _elementwise("isnan", 1),
    "relax.where": _elementwise("where", 3),
    "relax.add": _elementwise("add", 2),
    "relax.subtract": _elementwise("subtract", 2),
    "relax.multiply": _elementwise("multiply", 2),
    "relax.negative": _elementwise("negative", 1),
    "relax.sqrt": _elementwise("sqrt", 1),
}
"""Exact in IEEE arithmetic, or a mere movement: the same bits as a kernel would give."""

"""What passes over the bindings of a module's ``main`` have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tvm.ir import IRModule


def bindings_of(function: Any) -> list[Any]:
    """The bindings of all blocks of a function, in order."""
    return [binding for block in function.body.blocks for binding in block.bindings]


def emitted_anew(module: IRModule, emit: Callable[[Any, Any], Any]) -> IRModule:
    """``module`` with a ``main`` whose body ``emit(builder, old main)`` emits; it returns the result."""
    from tvm import ir, relax

    old = module["main"]
    builder = relax.BlockBuilder()
    with builder.function("main", list(old.params), attrs=dict(old.attrs or {})):
        builder.emit_func_output(emit(builder, old))
    functions = dict(module.functions.items())
    functions[module.get_global_var("main")] = builder.finalize()["main"]
    module = ir.IRModule(functions, attrs=module.attrs)
    module = relax.transform.ConvertToDataflow(min_size=1)(module)
    return relax.transform.DeadCodeElimination()(module)


def with_bindings(builder: Any, module: IRModule, change: Callable[[Any], Any | None]) -> IRModule:
    """What ``builder`` holds of ``module``, each binding of ``main`` replaced by ``change`` of it.

    None leaves a binding out.
    """
    from tvm import relax

    main = module["main"]
    blocks = [
        type(block)([new for old in block.bindings if (new := change(old)) is not None])
        for block in main.body.blocks
    ]
    body = relax.SeqExpr(blocks, main.body.body)
    changed = relax.Function(main.params, body, main.ret_ty, main.is_pure, main.attrs)
    builder.update_func(module.get_global_var("main"), changed)
    return relax.transform.DeadCodeElimination()(builder.get())


def count_uses(bindings: Sequence[Any], result: Any) -> dict[Any, int]:
    """How often each variable is read, by bindings and as a result."""
    from tvm import ir, relax

    found: dict[Any, int] = {}

    def count(node: Any) -> None:
        if isinstance(node, ir.Var):
            found[node] = found.get(node, 0) + 1

    for binding in bindings:
        relax.analysis.post_order_visit(binding.value, count)
    relax.analysis.post_order_visit(result, count)
    return found

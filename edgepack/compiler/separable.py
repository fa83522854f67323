"""Pointwise and depthwise convolutions as one kernel, where what lies between them leaves the cache.

Relax's fusion never puts two convolutions together. Here the fused functions of a depthwise convolution
and of the pointwise ones before and after it become one, if nothing else reads the tensor between two of
them and the cache that a core can count on does not hold it. Of what the depthwise one reads, the second
cache level must hold the rows of a window; of what it writes, the first level one row. The schedule then
makes both row by row (schedules/rows.py), and they never go to memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgepack.compiler.graph import bindings_of, count_uses, with_bindings
from edgepack.compiler.schedules.geometry import Geometry, geometry_of
from edgepack.compiler.schedules.rows import ring_rows
from edgepack.compiler.schedules.stages import read_stages

if TYPE_CHECKING:
    from tvm.ir import IRModule

    from edgepack.targets import Target


def join(module: IRModule, target: Target) -> IRModule:
    """Join functions that FuseOps has made. To be followed by FuseTIR."""
    from tvm import ir, relax

    main = module["main"]
    bindings = bindings_of(main)
    calls = {b.var: b.value for b in bindings if _is_group_call(module, b.value)}
    uses = count_uses(bindings, main.body.body)
    images = {v: found for v, call in calls.items() if (found := _convolution(module, call))}
    builder = relax.BlockBuilder(module)
    joined: dict[Any, tuple[str, Any, list[Any]]] = {}
    gone: set[Any] = set()
    for variable, (geometry, position) in images.items():
        between = calls[variable].args[position]
        if between not in images or uses[between] != 1:
            continue
        before, _ = images[between]
        if not _belong_together(before, geometry, target, alone=between not in joined):
            continue
        name, function, arguments = joined.pop(between, _group(module, calls[between]))
        next_name, following, others = _group(module, calls[variable])
        rest = [argument for i, argument in enumerate(others) if i != position]
        together = _together(function, following, position)
        joined[variable] = (f"{name}_{next_name}", together, [*arguments, *rest])
        gone.add(between)
    if not joined:
        return module
    replaced = {
        variable: ir.Call(builder.add_func(function, name), arguments)
        for variable, (name, function, arguments) in joined.items()
    }

    def change(binding: Any) -> Any | None:
        if binding.var in gone:
            return None
        new = replaced.get(binding.var)
        return binding if new is None else relax.VarBinding(binding.var, new)

    module = with_bindings(builder, module, change)
    for clean in (relax.transform.CanonicalizeBindings(), relax.transform.DeadCodeElimination()):
        module = clean(module)
    return module


def _group(module: IRModule, call: Any) -> tuple[str, Any, list[Any]]:
    return call.op.name_hint, module[call.op], list(call.args)


def _belong_together(before: Geometry, after: Geometry, target: Target, *, alone: bool) -> bool:
    """Whether two convolutions should be one kernel; ``before`` is ``alone`` if it has joined no other."""
    row = 4 * before.out_width * before.out_channels
    whole = before.batch * before.out_height * row
    if _is_depthwise(before) and _is_pointwise(after, target):
        # Half of the first level is for the row, the rest for what streams past it.
        return whole > target.l2_bytes // 2 and row <= target.l1_bytes // 2
    if _is_pointwise(before, target) and _is_depthwise(after) and alone:
        # A smaller image would gain less than the shorter product of a single row loses.
        return whole > 2 * target.l2_bytes and ring_rows(after) * row <= 3 * target.l2_bytes // 4
    return False


def _is_group_call(module: IRModule, value: Any) -> bool:
    from tvm import ir, relax

    return (
        isinstance(value, ir.Call)
        and isinstance(value.op, ir.GlobalVar)
        and isinstance(module[value.op], relax.Function)
    )


def _convolution(module: IRModule, call: Any) -> tuple[Geometry, int] | None:
    """The convolution that a group begins with, and which of the group's arguments is its image."""
    function = module[call.op]
    first = function.body.blocks[0].bindings[0].value
    if getattr(first.op, "name", "") != "relax.call_tir" or len(first.args[1].fields) != 2:
        return None
    kernel = read_stages(module[first.args[0]])
    if kernel is None or len(kernel.stages) != 1:
        return None
    geometry = geometry_of(kernel.stages[0])
    if geometry is None or not geometry.channels_last or geometry.upright:
        return None
    image, _ = first.args[1].fields
    positions = [i for i, parameter in enumerate(function.params) if parameter.same_as(image)]
    return (geometry, positions[0]) if positions else None


def _is_pointwise(geometry: Geometry, target: Target) -> bool:
    """Whether a convolution maps each pixel alone, with weights that stay in the second cache level."""
    plain = (
        geometry.kernel == geometry.strides == (1, 1)
        and geometry.groups == 1
        and geometry.top == geometry.left == 0
        and (geometry.out_height, geometry.out_width) == (geometry.height, geometry.width)
    )
    return plain and 4 * geometry.depth * geometry.out_channels <= target.l2_bytes // 4


def _is_depthwise(geometry: Geometry) -> bool:
    return geometry.channels == 1 and geometry.groups == geometry.out_channels > 1


def _together(first: Any, second: Any, position: int) -> Any:
    """One primitive function: ``second`` with its parameter ``position`` computed by ``first``."""
    from tvm import relax

    first, second = map(relax.utils.copy_with_new_vars, (first, second))
    parameters = list(second.params)
    between = relax.VarBinding(parameters.pop(position), first.body.body)
    steps = [
        *first.body.blocks[0].bindings,
        between,
        *second.body.blocks[0].bindings,
    ]
    body = relax.SeqExpr([relax.DataflowBlock(steps)], second.body.body)
    return relax.Function(
        [*first.params, *parameters], body, second.ret_ty, second.is_pure, second.attrs
    )

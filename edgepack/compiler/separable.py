"""Depthwise and pointwise convolution as one kernel, where what lies between them leaves the cache.

Relax's fusion never puts two convolutions together. Here the two fused functions of a separable
convolution become one, if nothing else reads the tensor between them, the cache that a core can count
on does not hold it, and the first cache level holds a row of it; the schedule then makes it row by row
(schedules/rows.py), and it never goes to memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgepack.compiler.graph import bindings_of, count_uses, with_bindings
from edgepack.compiler.schedules.geometry import Geometry, geometry_of
from edgepack.compiler.schedules.stages import read_stages

if TYPE_CHECKING:
    from tvm.ir import IRModule

    from edgepack.targets import Target


def join(module: IRModule, target: Target) -> IRModule:
    """Join pairs of functions that FuseOps has made. To be followed by FuseTIR."""
    from tvm import ir, relax

    main = module["main"]
    bindings = bindings_of(main)
    calls = {b.var: b.value for b in bindings if _is_group_call(module, b.value)}
    uses = count_uses(bindings, main.body.body)
    builder = relax.BlockBuilder(module)
    joined: dict[Any, Any] = {}
    gone: set[Any] = set()
    for variable, call in calls.items():
        position = _pointwise_input(module, call, target)
        if position is None:
            continue
        between = call.args[position]
        if between not in calls or uses[between] != 1 or between in joined:
            continue
        first = calls[between]
        if not _is_depthwise(module, first) or not _leaves_cache(between, target):
            continue
        function = _together(module[first.op], module[call.op], position)
        name = f"{first.op.name_hint}_{call.op.name_hint}"
        rest = [argument for i, argument in enumerate(call.args) if i != position]
        joined[variable] = ir.Call(builder.add_func(function, name), [*first.args, *rest])
        gone.add(between)
    if not joined:
        return module

    def change(binding: Any) -> Any | None:
        if binding.var in gone:
            return None
        new = joined.get(binding.var)
        return binding if new is None else relax.VarBinding(binding.var, new)

    module = with_bindings(builder, module, change)
    for clean in (relax.transform.CanonicalizeBindings(), relax.transform.DeadCodeElimination()):
        module = clean(module)
    return module


def _is_group_call(module: IRModule, value: Any) -> bool:
    from tvm import ir, relax

    return (
        isinstance(value, ir.Call)
        and isinstance(value.op, ir.GlobalVar)
        and isinstance(module[value.op], relax.Function)
    )


def _convolution(module: IRModule, call: Any) -> tuple[Geometry, Any, Any] | None:
    """Geometry, data and weights (as the group's own variables) of the convolution that it begins with."""
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
    data, weights = first.args[1].fields
    return geometry, data, weights


def _pointwise_input(module: IRModule, call: Any, target: Target) -> int | None:
    """Which argument of a group that begins with a small pointwise convolution is the image."""
    found = _convolution(module, call)
    if found is None:
        return None
    geometry, data, _ = found
    plain = (
        geometry.kernel == geometry.strides == (1, 1)
        and geometry.groups == geometry.batch == 1
        and geometry.top == geometry.left == 0
        and (geometry.out_height, geometry.out_width) == (geometry.height, geometry.width)
    )
    small = 4 * geometry.depth * geometry.out_channels <= target.l2_bytes // 4
    parameters = list(module[call.op].params)
    positions = [i for i, parameter in enumerate(parameters) if parameter.same_as(data)]
    return positions[0] if plain and small and positions else None


def _is_depthwise(module: IRModule, call: Any) -> bool:
    found = _convolution(module, call)
    if found is None:
        return False
    geometry, _, _ = found
    return geometry.channels == 1 and geometry.groups == geometry.out_channels > 1


def _leaves_cache(between: Any, target: Target) -> bool:
    """Whether the tensor is too large for the second cache level, and a row of it fits the first.

    Half of the first level is for the row, the rest for what streams past it.
    """
    _, height, width, channels = (int(extent) for extent in between.ty.shape)
    row = 4 * width * channels
    return height * row > target.l2_bytes // 2 and row <= target.l1_bytes // 2


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

"""Pointwise and depthwise convolutions as one kernel, where what lies between them leaves the cache.

Relax's fusion never puts two convolutions together. Here a depthwise convolution and the pointwise ones
before and after it become one, each with what was fused to it, if nothing else reads the tensor between
two of them and the cache that a core can count on does not hold it. Of what the depthwise one reads, the
second cache level must hold the rows of a window; of what it writes, the first level one row, or the second
where the whole is much larger. The schedule then makes both row by row (schedules/rows.py), and they never
go to memory.
"""

from __future__ import annotations

from dataclasses import dataclass
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
    kernels = {b.var: kernel for b in bindings if (kernel := _kernel_of(module, b.value))}
    uses = count_uses(bindings, main.body.body)
    images = {v: found for v, kernel in kernels.items() if (found := _convolution(module, kernel))}
    builder = relax.BlockBuilder(module)
    joined: dict[Any, _Kernel] = {}
    gone: set[Any] = set()
    for variable, (geometry, position) in images.items():
        following = kernels[variable]
        between = following.arguments[position]
        if between not in images or uses[between] != 1:
            continue
        before, _ = images[between]
        if not _belong_together(before, geometry, target, alone=between not in joined):
            continue
        joined[variable] = _together(joined.pop(between, kernels[between]), following, position)
        gone.add(between)
    if not joined:
        return module
    replaced = {
        variable: ir.Call(builder.add_func(kernel.function, kernel.name), kernel.arguments)
        for variable, kernel in joined.items()
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


@dataclass(frozen=True, kw_only=True, eq=False)
class _Kernel:
    """A primitive function and what it is called with."""

    name: str
    function: Any
    arguments: list[Any]


def _kernel_of(module: IRModule, value: Any) -> _Kernel | None:
    """What FuseOps made of several operators, or a single one that it left."""
    from tvm import ir, relax

    if not isinstance(value, ir.Call):
        return None
    if isinstance(value.op, ir.GlobalVar):
        function = module[value.op]
        if not isinstance(function, relax.Function):
            return None
        return _Kernel(name=value.op.name_hint, function=function, arguments=list(value.args))
    is_call = getattr(value.op, "name", "") == "relax.call_tir" and len(value.args) == 2
    if not is_call or not isinstance(
        value.ty, relax.TensorType
    ):  # such as a Split, with several results
        return None
    callee, arguments = value.args[0], list(value.args[1].fields)
    parameters = [relax.Var(f"p{i}", argument.ty) for i, argument in enumerate(arguments)]
    result = relax.Var("result", value.ty)
    call = relax.VarBinding(result, relax.call_tir(callee, relax.Tuple(parameters), value.ty))
    body = relax.SeqExpr([relax.DataflowBlock([call])], result)
    function = relax.Function(parameters, body, value.ty).with_attr("Primitive", True)
    return _Kernel(name=callee.name_hint, function=function, arguments=arguments)


def _belong_together(before: Geometry, after: Geometry, target: Target, *, alone: bool) -> bool:
    """Whether two convolutions should be one kernel; ``before`` is ``alone`` if it has joined no other."""
    row = 4 * before.out_width * before.out_channels
    whole = before.batch * before.out_height * row
    if _is_depthwise(before) and _is_pointwise(after, target):
        # Half of the first level is for the row, the rest for what streams past it.
        if row <= target.l1_bytes // 2:
            return whole > target.l2_bytes // 2
        # A longer one is in the second level, as those of three other cores may be.
        return whole > 2 * target.l2_bytes and row <= target.l2_bytes // 8
    if _is_pointwise(before, target) and _is_depthwise(after) and alone:
        # A smaller image would gain less than the shorter product of a single row loses.
        return whole > 2 * target.l2_bytes and ring_rows(after) * row <= 3 * target.l2_bytes // 4
    return False


def _convolution(module: IRModule, kernel: _Kernel) -> tuple[Geometry, int] | None:
    """The convolution that a kernel begins with, and which of its arguments is the image."""
    function = kernel.function
    first = function.body.blocks[0].bindings[0].value
    if getattr(first.op, "name", "") != "relax.call_tir" or len(first.args[1].fields) != 2:
        return None
    code = read_stages(module[first.args[0]])
    if code is None or len(code.stages) != 1:
        return None
    geometry = geometry_of(code.stages[0])
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


def _together(before: _Kernel, after: _Kernel, position: int) -> _Kernel:
    """``after`` with its argument ``position`` computed by ``before``."""
    from tvm import relax

    first, second = (relax.utils.copy_with_new_vars(kernel.function) for kernel in (before, after))
    parameters = list(second.params)
    between = relax.VarBinding(parameters.pop(position), first.body.body)
    steps = [
        *first.body.blocks[0].bindings,
        between,
        *second.body.blocks[0].bindings,
    ]
    body = relax.SeqExpr([relax.DataflowBlock(steps)], second.body.body)
    function = relax.Function(
        [*first.params, *parameters], body, second.ret_ty, second.is_pure, second.attrs
    )
    others = [argument for i, argument in enumerate(after.arguments) if i != position]
    return _Kernel(
        name=f"{before.name}_{after.name}",
        function=function,
        arguments=[*before.arguments, *others],
    )

"""Concatenations without a kernel: what makes the parts writes them where they belong.

A part's producer gets a copy of its function whose result is a window of the whole (attribute
WINDOW), and the concatenation's own function is marked (ELIDED): the plan lets the parts share the
whole's memory and leaves the call out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgepack.compiler.attributes import ELIDED, WINDOW
from edgepack.compiler.graph import bindings_of, count_uses, with_bindings
from edgepack.compiler.schedules.expressions import rebuild, same, simplified
from edgepack.compiler.schedules.stages import Kernel, Stage, read_stages, shape_of

if TYPE_CHECKING:
    from tvm.ir import IRModule
    from tvm.tirx import PrimFunc


def write_in_place(module: IRModule) -> IRModule:
    """Elide every concatenation whose parts are results of kernels that nothing else reads."""
    main = module["main"]
    bindings = bindings_of(main)
    calls = {b.var: b.value for b in bindings if _is_kernel_call(b.value)}
    uses = count_uses(bindings, main.body.body)
    replaced: dict[Any, Any] = {}
    added: dict[Any, PrimFunc] = {}
    for variable, call in calls.items():
        function = module[call.args[0]]
        parts = _parts(function)
        given = list(call.args[1].fields)
        if parts is None or len(parts) != len(given) or len(set(map(id, given))) != len(given):
            continue
        if not all(_is_free(module, calls, uses, replaced, part) for part in given):
            continue
        whole = [int(extent) for extent in variable.ty.shape]
        for part, offset in zip(given, parts, strict=True):
            producer = calls[part]
            target = module[producer.args[0]]
            window = [len(target.params) - 1, offset, *whole]
            name = _unused(f"{producer.args[0].name_hint}_part", added)
            added[name] = target.with_attr(WINDOW, window)
            replaced[part] = name
        name = _unused(f"{call.args[0].name_hint}_elided", added)
        added[name] = function.with_attr(ELIDED, 1)
        replaced[variable] = name
    if not replaced:
        return module
    return _with_calls(module, replaced, added)


def _is_kernel_call(value: Any) -> bool:
    from tvm import ir

    return isinstance(value, ir.Call) and getattr(value.op, "name", "") == "relax.call_tir"


def _unused(name: str, added: Mapping[str, Any]) -> str:
    number = sum(known.rsplit("_", 1)[0] == name for known in added)
    return f"{name}_{number}"


def _is_free(
    module: IRModule,
    calls: Mapping[Any, Any],
    uses: Mapping[Any, int],
    replaced: Mapping[Any, Any],
    part: Any,
) -> bool:
    """Whether ``part`` is a kernel's only result, read once, and its kernel's loops are ours."""
    from tvm import relax

    if part not in calls or uses[part] != 1 or part in replaced:
        return False
    if not isinstance(part.ty, relax.TensorType):
        return False
    kernel = read_stages(module[calls[part].args[0]])
    return kernel is not None and kernel.definition(kernel.parameters[-1]) is not None


def _parts(function: PrimFunc) -> list[int] | None:
    """Where each parameter's elements begin in the result, in elements; None for another kernel."""
    kernel = read_stages(function)
    if kernel is None or any(stage.is_reduction for stage in kernel.stages):
        return None
    stage = kernel.stages[-1]
    if kernel.position(stage.buffer) != len(kernel.parameters) - 1:
        return None
    pieces = _pieces(_collapsed(kernel, stage))
    if len(pieces) < 2 or len(pieces) != len(kernel.parameters) - 1:
        return None
    if any(
        shape_of(seen) != shape_of(own)
        for seen, own in zip(kernel.parameters, function.params, strict=True)
    ):
        return None  # reshaped on the way: whoever makes a part makes it along other axes
    offsets: dict[int, int] = {}
    axis: int | None = None
    for start, load in pieces:
        position = kernel.position(load.source)
        shifted = _shifted_axis(stage, load, start)
        if position is None or shifted is None or (axis is not None and shifted not in (axis, -1)):
            return None
        axis = axis if shifted == -1 else shifted
        offsets[position] = start
    if axis is None or sorted(offsets) != list(range(len(pieces))):
        return None
    if not _covers(kernel.parameters, stage.shape, axis, offsets):
        return None
    inner = math.prod(stage.shape[axis + 1 :])
    return [offsets[position] * inner for position in range(len(pieces))]


def _collapsed(kernel: Kernel, stage: Stage) -> Any:
    """The stage's value with the stages before it written out in it."""
    from tvm import tirx

    def load(buffer: Any, position: list[Any], _guarded: bool) -> Any:
        before = kernel.definition(buffer)
        if before is None:
            return tirx.BufferLoad(buffer, position)
        axes = {axis: at for (axis, _), at in zip(before.axes, position, strict=True)}
        return rebuild(before.value, axes, load, replacing=False)

    return rebuild(stage.value, {}, load, replacing=False)


def _covers(
    parameters: tuple[Any, ...], shape: tuple[int, ...], axis: int, offsets: Mapping[int, int]
) -> bool:
    """Whether the parts lie one behind the other along ``axis`` and fill it."""
    at = 0
    for position, start in sorted(offsets.items(), key=lambda item: item[1]):
        part = shape_of(parameters[position])
        expected = (*shape[:axis], part[axis], *shape[axis + 1 :])
        if start != at or part != expected:
            return False
        at += part[axis]
    return at == shape[axis]


def _pieces(value: Any) -> list[tuple[int, Any]]:
    """(first position, load) of each part of ``if start <= axis: load else …``; empty if another form."""
    from tvm import ir, tirx

    found: list[tuple[int, Any]] = []
    while isinstance(value, ir.Call) and value.op.name == "prim.if_then_else":
        condition, part, value = value.args
        if not isinstance(condition, tirx.LE) or not isinstance(condition.a, tirx.IntImm):
            return []
        if not isinstance(part, ir.TensorLoad):
            return []
        found.append((int(condition.a.value), part))
    return [*found, (0, value)] if isinstance(value, ir.TensorLoad) else []


def _shifted_axis(stage: Stage, load: Any, start: int) -> int | None:
    """The axis along which ``load`` lies ``start`` behind the result; -1 for none (start 0)."""
    shifted = -1
    for axis, (index, (variable, _)) in enumerate(zip(load.indices, stage.axes, strict=True)):
        if index.same_as(variable):
            continue
        if start and shifted == -1 and same(simplified(variable - index), start):
            shifted = axis
            continue
        return None
    return shifted if start == 0 or shifted >= 0 else None


def _with_calls(
    module: IRModule, replaced: Mapping[Any, str], added: Mapping[str, PrimFunc]
) -> IRModule:
    """The module with the calls of ``replaced`` going to the functions ``added``."""
    from tvm import ir, relax

    builder = relax.BlockBuilder(module)
    variables = {name: builder.add_func(function, name) for name, function in added.items()}

    def change(binding: Any) -> Any:
        if binding.var not in replaced:
            return binding
        call = binding.value
        arguments = [variables[replaced[binding.var]], *call.args[1:]]
        new = ir.Call(call.op, arguments, call.attrs, call.ty_args, ret_ty=call.ty)
        return relax.VarBinding(binding.var, new)

    return with_bindings(builder, module, change)

"""Schedule rules: each recognises a group of stages and writes its loops for the target.

``RULES`` is the list, and its order is the priority. A rule is a pure function of a group and the
target profile: the same input gives the same loops, with no device and no tuning. A function that
is no list of stages (stages.py) keeps its own loops, ordered by generic.py.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from edgepack.compiler import packing
from edgepack.compiler.attributes import CONSTANTS, ELIDED, FLOPS, RULE
from edgepack.compiler.schedules import (
    convolution,
    depthwise,
    elementwise,
    emit,
    generic,
    matmul,
    reduction,
    rows,
    transposed,
    winograd,
)
from edgepack.compiler.schedules.groups import Group, make_groups, shared_axes
from edgepack.compiler.schedules.movements import read_through
from edgepack.compiler.schedules.nest import FLOAT_BITS, Nest, Request, Rule
from edgepack.compiler.schedules.stages import Kernel, read_stages
from edgepack.compiler.schedules.values import Memory, Rows
from edgepack.compiler.schedules.work import operations
from edgepack.compiler.workspace import WORKSPACES, hoist_workspaces

if TYPE_CHECKING:
    from tvm.ir import IRModule
    from tvm.tirx import PrimFunc

    from edgepack.targets import Target

RULES: tuple[Rule, ...] = (
    depthwise.schedule,
    winograd.schedule,
    convolution.schedule,
    transposed.schedule,
    matmul.schedule,
    reduction.schedule,
    elementwise.schedule,
)

_SHARED_OPERATIONS = 10_000
"""Kernels with fewer, for each lane of a vector, are not worth sharing: about a microsecond of one core.
To write an element takes as long as a vector of operations: it is moved through the caches. A launch costs
0.3 us (on a Xeon of 2023). A kernel that one thread does between two that are shared costs more: it gets half
of its input from another core's caches, and the next kernel half of its results."""


def apply(module: IRModule, target: Target) -> IRModule:
    """Schedule every PrimFunc; each gets the attributes edgepack.rule and edgepack.flops."""
    import tvm
    from tvm import s_tir

    plain: dict[Any, PrimFunc] = {}
    constants = _constant_parameters(module)
    for variable, function in _kernels(module):
        if ELIDED in (function.attrs or {}):
            continue
        function = function.with_attr(CONSTANTS, sorted(constants[variable]))
        done = schedule(function, target)
        if done is None:
            plain[variable] = generic.schedule(function, target) or function
        else:
            module[variable] = done
    settle = [
        s_tir.transform.LowerInitBlock(),
        s_tir.transform.PlanAndUpdateBufferAllocationLocation(),
    ]
    settled = tvm.transform.Sequential(settle)(tvm.IRModule(plain)) if plain else {}
    for variable, function in _kernels(settled) if plain else []:
        module[variable] = hoist_workspaces(function).with_attr(RULE, "generic")
    return module


def schedule(function: PrimFunc, target: Target) -> PrimFunc | None:
    """The function with loops written by RULES; None if it is no list of stages."""
    kernel = read_stages(function)
    if kernel is None:
        return None
    kernel = read_through(kernel)
    groups = make_groups(kernel)
    memory = Memory(kernel=kernel)
    flops = sum(operations(stage) for stage in kernel.stages)
    lanes = max(1, target.vector_bits // FLOAT_BITS)
    work = flops + lanes * sum(math.prod(stage.shape) for stage in kernel.stages)
    tasks = target.cores if work >= _SHARED_OPERATIONS * lanes else 1
    nests = rows.schedule(groups, memory, target, tasks)
    if nests is None:
        memory = Memory(kernel=kernel)
        nests = _nests(kernel, groups, memory, target, tasks)
    if nests is None:
        return None
    results = [group.result.buffer for group in groups]
    stored = [memory.of(buffer) for buffer in results if not kernel.is_parameter(buffer)]
    statements, written = nests
    return _assemble(kernel, memory, statements, written, stored, flops)


def _nests(
    kernel: Kernel, groups: list[Group], memory: Memory, target: Target, tasks: int
) -> tuple[list[Any], list[Nest]] | None:
    """Statements, and the nests in them; groups that share leading axes share their loops.

    What one writes for the next inside such a loop is kept for the loop's one position at a time, and so
    stays in the first cache level.
    """
    shared = shared_axes(kernel, groups)
    written: list[Nest] = []
    refused = False

    def write(prefix: list[Any], threads: int, slot: Any = None) -> list[Any]:
        nonlocal refused
        for group in groups if shared else ():
            if not kernel.is_parameter(group.result.buffer):
                row = Rows(slot=slot, slots=slots, extents=tuple(group.result.shape[shared:]))
                memory.keep_rows(group.result.buffer, row)
        statements = []
        for group in groups:
            request = Request(
                group=group, memory=memory, target=target, prefix=tuple(prefix), tasks=threads
            )
            nest = _first(request)
            if nest is None:
                refused = True
                continue
            written.append(nest)
            statements.append(nest.statements)
        return statements

    extents = list(groups[0].result.shape[:shared])
    slots = 1 if math.prod(extents) == 1 else tasks
    if shared:
        statements = [
            emit.shares(
                math.prod(extents),
                slots,
                lambda at, slot: write(emit.position_of(extents, at), 1, slot),
            )
        ]
    else:
        statements = write([], tasks)
    return None if refused else (statements, written)


def _first(request: Request) -> Nest | None:
    for rule in RULES:
        nest = rule(request)
        if nest is not None:
            return nest
    return None


def _assemble(
    kernel: Kernel,
    memory: Memory,
    statements: list[Any],
    nests: list[Nest],
    stored: list[Any],
    flops: int,
) -> PrimFunc:
    """The PrimFunc on dense vectors; buffers that live inside it become parameters at its end."""
    from tvm import tirx

    parameters = [memory.of(parameter) for parameter in kernel.parameters]
    workspaces = [*stored, *(buffer for nest in nests for buffer in nest.workspaces)]
    function = tirx.PrimFunc([*parameters, *workspaces], emit.sequence(statements))
    packings = []
    for item in [item for nest in nests for item in nest.packings]:
        position = kernel.position(item.parameter)
        assert position is not None
        packings.append(item.to_json(position))
    attributes: dict[str, Any] = {
        "tirx.noalias": True,
        RULE: "+".join(dict.fromkeys(nest.rule for nest in nests)),
        FLOPS: flops,
        WORKSPACES: len(workspaces),
        packing.ATTRIBUTE: packings,
    }
    return function.with_attrs(attributes)


def _constant_parameters(module: IRModule) -> dict[Any, set[int]]:
    """For every kernel the parameters that are constants wherever it is called."""
    from tvm import ir

    found: dict[Any, set[int]] = {}
    for block in module["main"].body.blocks:
        for binding in block.bindings:
            call = binding.value
            if not isinstance(call, ir.Call) or not call.args:
                continue
            if not isinstance(call.args[0], ir.GlobalVar) or len(call.args) < 2:
                continue
            fields = getattr(call.args[1], "fields", ())
            constant = {i for i, a in enumerate(fields) if isinstance(a, ir.GenericConst)}
            kernel = call.args[0]
            found[kernel] = found[kernel] & constant if kernel in found else constant
    return found


def _kernels(module: IRModule) -> list[tuple[Any, PrimFunc]]:
    from tvm import tirx

    return [(v, f) for v, f in module.functions.items() if isinstance(f, tirx.PrimFunc)]

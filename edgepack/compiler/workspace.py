"""Kernels' own temporary buffers, moved out of the kernels and into the arena.

TVM's code would ask a runtime for them at every call. Here they become further parameters of the
kernel, so that the plan gives them a place and no kernel allocates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgepack.artefacts import TensorSpec
from edgepack.compiler.tensors import tensor_spec

if TYPE_CHECKING:
    from tvm.tirx import PrimFunc

STACK_BYTES = 512
"""Buffers up to this size stay local: TVM puts them on the stack (its own limit is 1024 bytes)."""

WORKSPACES = "edgepack.workspaces"


def hoist_workspaces(function: PrimFunc) -> PrimFunc:
    """Append the root block's larger allocations to the parameters; others are left as they are."""
    from tvm import s_tir, tirx

    realize = function.body
    if not isinstance(realize, s_tir.SBlockRealize):
        return function
    root = realize.block
    hoisted = [
        b
        for b in root.alloc_buffers
        if b.scope() == "global" and tensor_spec("", b).nbytes > STACK_BYTES
    ]
    if not hoisted:
        return function
    names = {buffer.name for buffer in hoisted}
    block = s_tir.SBlock(
        root.iter_vars,
        root.reads,
        root.writes,
        root.name_hint,
        root.body,
        root.init,
        [buffer for buffer in root.alloc_buffers if buffer.name not in names],
        root.match_buffers,
        root.annotations,
    )
    body = s_tir.SBlockRealize(realize.iter_values, realize.predicate, block)
    parameters = [*function.params, *hoisted]
    moved = tirx.PrimFunc(parameters, body, function.ret_type, function.attrs)
    return moved.with_attr(WORKSPACES, len(hoisted))


def workspaces_of(function: PrimFunc) -> list[TensorSpec]:
    """The parameters that hoist_workspaces appended, in order."""
    count = int(function.attrs[WORKSPACES]) if WORKSPACES in function.attrs else 0
    return [tensor_spec("", buffer) for buffer in function.params[len(function.params) - count :]]

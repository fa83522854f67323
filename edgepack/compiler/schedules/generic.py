"""What is no list of stages (scatters, ArgMax): inline elementwise chains, walk memory in order.

    for spatial...:  for reduction...:  for last output axis:   acc[last] ⊕= term[last]

LLVM vectorises the innermost loop, which it may not do with a floating-point sum along memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tvm.tirx import PrimFunc

    from edgepack.targets import Target


def schedule(function: PrimFunc, target: Target) -> PrimFunc | None:
    """Take any function that TVM can schedule; decline the others (opaque bodies)."""
    import tvm
    from tvm import s_tir

    try:
        sch = s_tir.Schedule(tvm.IRModule({"main": function}))
        root = sch.get_sblock("root")
    except Exception:  # not a schedulable body: TVM raises several types for it
        return None
    _inline_elementwise(sch, root)
    for block in sch.get_child_blocks(root):
        if not _is_reduction(sch, block):
            continue
        _last_axis_innermost(sch, block)
    return sch.mod["main"]


def _inline_elementwise(sch: Any, root: Any) -> None:
    """Inline spatial producers into spatial consumers; what TVM refuses stays as it is."""
    from tvm import s_tir

    for block in sch.get_child_blocks(root):
        consumers = sch.get_consumers(block)
        if _is_reduction(sch, block) or not consumers:
            continue
        if any(_is_reduction(sch, consumer) for consumer in consumers):
            continue
        try:
            sch.compute_inline(block)
        except s_tir.ScheduleError:
            continue


def _is_reduction(sch: Any, block: Any) -> bool:
    return any(int(axis.iter_type) == _REDUCE for axis in sch.get(block).iter_vars)


_REDUCE = 2
"""tirx.IterVar.CommReduce."""


def _last_axis_innermost(sch: Any, block: Any) -> None:
    """Reorder to (spatial, reduction, last spatial) where each axis has a loop of its own."""
    from tvm import s_tir

    loops = sch.get_loops(block)
    kinds = [int(axis.iter_type) for axis in sch.get(block).iter_vars]
    if len(loops) != len(kinds):
        return
    spatial = [loop for loop, kind in zip(loops, kinds, strict=True) if kind != _REDUCE]
    reduction = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == _REDUCE]
    if not spatial or int(sch.get(spatial[-1]).extent) == 1:
        return
    try:
        sch.decompose_reduction(block, reduction[0])
        sch.reorder(*spatial[:-1], *reduction, spatial[-1])
    except s_tir.ScheduleError:
        return

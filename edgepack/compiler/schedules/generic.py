"""Any kernel: fuse elementwise chains, and walk memory in order.

Where neighbouring outputs are neighbours in memory (convolutions in NHWC, matrix products):

    for spatial...:  for reduction...:  for last output axis:   acc[last] += a * b[last]

LLVM vectorises the innermost loop with plain loads, which it may not do with a floating-point sum.
Where the reduction itself runs along memory (softmax, norms, products with a transposed matrix):

    for spatial...:  for chunk:  for lane:   acc[lane] += a[chunk, lane];   then the lanes are added

This too is a vector loop. It is also needed for the numbers: one running sum of thousands of small
terms loses those that are below the rounding of a large one (Higham, "Accuracy and Stability of
Numerical Algorithms", section 4.2). Register tiles are not attempted here.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from edgepack.artefacts import DTYPE_BYTES

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
        if _reads_along_reduction(sch, block):
            _sum_in_lanes(sch, block)
        else:
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


_LANES = 48
"""Partial sums for one result, about: enough for any vector width, few enough for registers."""
_LANE_BYTES = 1024
"""Partial sums that take less stay on the stack (TVM's own limit)."""


def _reads_along_reduction(sch: Any, block: Any) -> bool:
    """Whether every operand that the reduction walks has its last axis along the reduction."""
    node = sch.get(block)
    summed = [axis.var for axis in node.iter_vars if int(axis.iter_type) == _REDUCE]
    kept = [axis.var for axis in node.iter_vars if int(axis.iter_type) != _REDUCE]
    last = [read.region[-1].min for read in node.reads if len(read.region)]
    if any(index.same_as(axis) for index in last for axis in kept):
        return False
    return any(index.same_as(axis) for index in last for axis in summed)


def _sum_in_lanes(sch: Any, block: Any) -> None:
    """Split the innermost reduction into chunks of lanes, summed apart and added at the end."""
    loops = sch.get_loops(block)
    if len(loops) != len(sch.get(block).iter_vars):
        return
    lanes = _lanes(int(sch.get(loops[-1]).extent), sch.get(block).writes[0].source.dtype)
    if lanes is None:
        return
    try:
        _, lane = sch.split(loops[-1], [None, lanes])
        partial = sch.rfactor(lane, factor_axis=0)
        outer = sch.get_loops(block)[:-1]
        if not outer:
            return
        sch.compute_at(partial, outer[-1])
        lane, *chunks = sch.get_loops(partial)[len(outer) :]
        sch.decompose_reduction(partial, lane)
        sch.reorder(*chunks, lane)
    except Exception:  # what TVM cannot split raises ScheduleError or InternalError
        return


def _lanes(extent: int, dtype: str) -> int | None:
    """The divisor of ``extent`` nearest to _LANES; None where there is none (primes).

    Only divisors: rfactor drops the guard of a split that does not come out even.
    """
    item = DTYPE_BYTES.get(str(dtype), 8)
    fitting = [n for n in range(4, min(extent // 2 + 1, _LANE_BYTES // item)) if extent % n == 0]
    return min(fitting, key=lambda n: abs(math.log(n / _LANES)), default=None)


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

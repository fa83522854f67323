"""Depthwise and pointwise convolution in turns, row by row.

    for threads:  for rows:
        the depthwise convolution's row, with its epilogue, into a buffer of one row
        the pointwise convolution of that row, with its epilogue, into the result

The row between the two stays in the first cache level; every thread has a buffer of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgepack.compiler.schedules import depthwise, emit, matmul
from edgepack.compiler.schedules.expressions import index
from edgepack.compiler.schedules.geometry import geometry_of
from edgepack.compiler.schedules.groups import Group, collect_positions
from edgepack.compiler.schedules.nest import Nest, Request
from edgepack.compiler.schedules.values import Memory, Rows


def schedule(
    groups: Sequence[Group], memory: Memory, target: Any, tasks: int
) -> tuple[list[Any], list[Nest]] | None:
    """Take two groups of which the second is a pointwise convolution of the first's depthwise one."""
    if len(groups) != 2 or not _is_pair(*groups):
        return None
    first = groups[0]
    _, height, width, channels = first.result.shape
    slots = max(1, tasks)
    written: list[Nest] = []

    def row(at: Any, slot: Any) -> list[Any]:
        memory.keep_rows(
            first.result.buffer, Rows(slot=slot, slots=slots, extents=(width, channels))
        )
        requests = [
            Request(group=group, memory=memory, target=target, prefix=(index(0), at))
            for group in groups
        ]
        nests = [depthwise.schedule(requests[0]), matmul.schedule(requests[1])]
        written.extend(nest for nest in nests if nest is not None)
        return [nest.statements for nest in nests if nest is not None]

    statements = emit.shares(height, tasks, row)
    return ([statements], written) if len(written) == 2 else None


def _is_pair(first: Group, second: Group) -> bool:
    if first.main is None or second.main is None:
        return False
    above, below = geometry_of(first.main), geometry_of(second.main)
    if above is None or below is None or above.batch != 1:
        return False
    if above.channels != 1 or above.groups != above.out_channels or not above.channels_last:
        return False
    if below.kernel != (1, 1) or not below.data.same_as(first.result.buffer):
        return False
    others: list[list[Any]] = []
    if second.result is not second.main:
        collect_positions(second.result, first.result, second.inlined, others)
    return not others

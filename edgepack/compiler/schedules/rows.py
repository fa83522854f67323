"""Pointwise and depthwise convolutions in turns, row by row: pairs, or all three of an inverted bottleneck.

    for threads:  for rows of the depthwise convolution:
        the rows of its window that are new, from the pointwise convolution before, into a ring of rows
        the depthwise convolution's row, with its epilogue, into a buffer of one row
        the pointwise convolution of that row, with its epilogue, into the result

What lies between two of them stays in the first or second cache level; every thread has buffers of its
own, and begins with a window of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from edgepack.compiler.schedules import depthwise, emit, matmul
from edgepack.compiler.schedules.expressions import index
from edgepack.compiler.schedules.geometry import Geometry, geometry_of
from edgepack.compiler.schedules.groups import Group, collect_positions
from edgepack.compiler.schedules.nest import Nest, Request, Rule
from edgepack.compiler.schedules.values import Memory, Rows

if TYPE_CHECKING:
    from edgepack.targets import Target


def schedule(
    groups: Sequence[Group], memory: Memory, target: Target, tasks: int
) -> tuple[list[Any], list[Nest]] | None:
    """Take a depthwise convolution with the pointwise one before it, the one after it, or both."""
    chain = _chain_of(groups)
    if chain is None:
        return None
    writer = _Writer(chain, memory, target, max(1, tasks))
    statements = emit.shares(writer.lines, tasks, writer.row)
    return ([statements], writer.nests) if len(writer.nests) == len(groups) else None


@dataclass(frozen=True, kw_only=True, eq=False)
class _Chain:
    before: Group | None
    middle: Group
    after: Group | None
    window: Geometry
    """The middle one's."""


class _Writer:
    """Writes the loops of one chain."""

    def __init__(self, chain: _Chain, memory: Memory, target: Target, slots: int) -> None:
        self.chain, self.memory, self.target, self.slots = chain, memory, target, slots
        self.nests: list[Nest] = []
        self.lines = chain.window.batch * chain.window.out_height
        """Rows of the depthwise convolution, in all images."""

    def row(self, line: Any, slot: Any) -> list[Any]:
        """A row of the depthwise convolution, by the thread that has the buffers ``slot``."""
        from tvm import tirx

        chain = self.chain
        statements: list[Any] = []
        n, at = emit.position_of([chain.window.batch, chain.window.out_height], line)
        n = emit.bind(n, "image", statements)
        at = emit.bind(at, "row", statements)
        if chain.before is not None:
            self._keep(chain.before, slot, ring_rows(chain.window))
            begins = tirx.Or(
                line.equal(emit.share_start(self.lines, self.slots, slot)), at.equal(index(0))
            )
            statements.append(
                emit.between(
                    *_new_rows(chain.window, at, begins), partial(self._line, chain.before, n)
                )
            )
        if chain.after is not None:
            self._keep(chain.middle, slot)
        statements += self._write(depthwise.schedule, chain.middle, n, at)
        if chain.after is not None:
            statements += self._write(matmul.schedule, chain.after, n, at)
        return statements

    def _line(self, group: Group, n: Any, position: Any) -> list[Any]:
        statements: list[Any] = []
        row = emit.bind(position, "line", statements)
        return [*statements, *self._write(matmul.schedule, group, n, row)]

    def _keep(self, group: Group, slot: Any, ring: int = 1) -> None:
        rows = Rows(slot=slot, slots=self.slots, extents=tuple(group.result.shape[2:]), ring=ring)
        self.memory.keep_rows(group.result.buffer, rows)

    def _write(self, rule: Rule, group: Group, n: Any, row: Any) -> list[Any]:
        request = Request(group=group, memory=self.memory, target=self.target, prefix=(n, row))
        nest = rule(request)
        if nest is None:
            return []
        self.nests.append(nest)
        return [nest.statements]


def ring_rows(window: Geometry) -> int:
    """The rows of a window, and more up to a power of two, so that where one lies is a mask."""
    return 1 << (window.reach - 1).bit_length()


def _new_rows(window: Geometry, at: Any, begins: Any) -> tuple[Any, Any]:
    """The input rows of output row ``at`` that the one before did not need; all where it ``begins``."""
    from tvm import tirx

    step, reach = window.strides[0], window.reach
    top = at * index(step) - index(window.top)
    before = tirx.Select(begins, top, top + index(reach - step))
    start = tirx.max(index(0), tirx.max(top, before))
    stop = tirx.min(index(window.height), top + index(reach))
    return start, tirx.max(start, stop)


def _chain_of(groups: Sequence[Group]) -> _Chain | None:
    if len(groups) not in (2, 3) or any(group.main is None for group in groups):
        return None
    geometries = [geometry_of(group.main) for group in groups if group.main is not None]
    middle = 1 if len(groups) == 3 or (geometries[0] and geometries[0].kernel == (1, 1)) else 0
    for position, geometry in enumerate(geometries):
        if geometry is None or not geometry.channels_last:
            return None
        if position and not _reads_only_as_image(groups[position], geometry, groups[position - 1]):
            return None
        if position != middle and geometry.kernel != (1, 1):
            return None
    window = geometries[middle]
    assert window is not None
    if window.channels != 1 or window.groups != window.out_channels:
        return None
    return _Chain(
        before=groups[0] if middle else None,
        middle=groups[middle],
        after=groups[middle + 1] if middle + 1 < len(groups) else None,
        window=window,
    )


def _reads_only_as_image(group: Group, geometry: Geometry, before: Group) -> bool:
    if not geometry.data.same_as(before.result.buffer):
        return False
    others: list[list[Any]] = []
    if group.result is not group.main:
        collect_positions(group.result, before.result, group.inlined, others)
    return not others

"""Which stages of a kernel become one loop nest, and which are computed on the way.

A group is one stage that is written to memory, with the stages that are computed inside its
innermost loop, and at most one reduction whose result stays in a register until the stages after it
(bias, activation, residual) have been applied: its epilogue.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgepack.compiler.schedules.expressions import (
    has_functions,
    is_cheap,
    is_movement,
    loads,
    rebuild,
    same,
    simplified,
)
from edgepack.compiler.schedules.mathematics.terms import is_square
from edgepack.compiler.schedules.stages import Kernel, Stage


@dataclass(frozen=True, kw_only=True, eq=False)
class Group:
    """``result`` is written; ``main``, if any, is the reduction that it is made from."""

    result: Stage
    main: Stage | None
    inlined: tuple[Stage, ...]
    """Computed where they are needed; of the whole kernel, not of this group alone."""


def make_groups(kernel: Kernel) -> list[Group]:
    """Partition the kernel's stages; groups are in order of execution."""
    roots: dict[Stage, list[Stage]] = {}
    stored: list[Stage] = []
    inlined: list[Stage] = []
    for stage in reversed(kernel.stages):
        users: list[Stage] = []
        for consumer in kernel.consumers(stage):
            for root in [consumer] if consumer in stored else roots[consumer]:
                if root not in users:
                    users.append(root)
        roots[stage] = users
        if _is_inlined(kernel, stage, users):
            inlined.append(stage)
        else:
            stored.append(stage)
    held: dict[Stage, Stage] = {}
    for stage in kernel.stages:
        target = _epilogue_of(kernel, stage, roots[stage], inlined)
        if target is not None:
            held.setdefault(target, stage)
    return [
        Group(result=stage, main=_main(stage, held), inlined=tuple(inlined))
        for stage in reversed(stored)
        if stage not in held.values()
    ]


def _main(stage: Stage, held: dict[Stage, Stage]) -> Stage | None:
    if stage.is_reduction:
        return stage
    return held.get(stage)


def _is_inlined(kernel: Kernel, stage: Stage, users: Sequence[Stage]) -> bool:
    if stage.is_reduction or kernel.is_parameter(stage.buffer) or not users:
        return False
    if any(user.is_reduction and is_product(user) for user in users):
        return is_movement(stage.value)
    if is_cheap(stage.value):
        return True
    size = math.prod(stage.shape)
    return len(users) == 1 and all(
        not user.is_reduction and math.prod(user.shape) < 2 * size for user in users
    )


def is_product(stage: Stage) -> bool:
    """Whether a reduction sums products of two operands: a convolution or a matrix product.

    Squares are of one operand: a norm is a sum like any other.
    """
    from tvm import tirx

    value = stage.value
    return (
        stage.is_reduction
        and isinstance(value, tirx.Add)
        and isinstance(value.b, tirx.Mul)
        and bool(loads(value.b.a))
        and bool(loads(value.b.b))
        and not is_square(value.b)
    )


def _epilogue_of(
    kernel: Kernel, stage: Stage, users: Sequence[Stage], inlined: Sequence[Stage]
) -> Stage | None:
    """The only stage that is written from the reduction ``stage``, if it needs it element by element."""
    if not stage.is_reduction or kernel.is_parameter(stage.buffer) or len(users) != 1:
        return None
    root = users[0]
    if root.is_reduction or root.shape != stage.shape:
        return None
    if root.shape and root.shape[-1] < _NARROW and _calls_functions(root, inlined):
        return None
    positions: list[list[Any]] = []
    collect_positions(root, stage, inlined, positions)
    variables = [variable for variable, _ in root.axes]
    identical = all(
        len(position) == len(variables)
        and all(
            _is_axis(where, variable, extent)
            for where, variable, extent in zip(position, variables, root.shape, strict=True)
        )
        for position in positions
    )
    return root if positions and identical else None


_NARROW = 8
"""Results of fewer channels fill no vector; elementary functions of them are worth a pass of their
own, which takes the whole tensor as one run."""


def _calls_functions(root: Stage, inlined: Sequence[Stage]) -> bool:
    """Whether computing ``root`` calls an elementary function."""
    pending = [root]
    while pending:
        stage = pending.pop()
        if has_functions(stage.value):
            return True
        pending += [s for s in inlined if any(s.buffer.same_as(x) for x in stage.sources)]
    return False


def _is_axis(where: Any, variable: Any, extent: int) -> bool:
    if where.same_as(variable):
        return True
    return extent == 1 and same(simplified(where), 0)


def collect_positions(
    root: Stage, wanted: Stage, inlined: Sequence[Stage], found: list[list[Any]]
) -> None:
    """Add to ``found`` every position at which computing ``root`` at its axes reads ``wanted``."""

    def load(buffer: Any, position: list[Any], guarded: bool) -> Any:
        from tvm import tirx

        if buffer.same_as(wanted.buffer):
            found.append(position)
            return tirx.BufferLoad(buffer, position)
        stage = next((s for s in inlined if s.buffer.same_as(buffer)), None)
        if stage is None:
            return tirx.BufferLoad(buffer, position)
        axes = {axis: where for (axis, _), where in zip(stage.axes, position, strict=True)}
        return rebuild(stage.value, axes, load, guarded, False)

    rebuild(root.value, {}, load, replacing=False)


def shared_axes(kernel: Kernel, groups: Sequence[Group]) -> int:
    """How many leading axes all groups have in common, so that one outer loop can serve all.

    Group by group inside that loop, what one writes the next reads while it is in the cache. Matrix
    products and convolutions stay alone: their tiles need all axes.
    """
    products = any(group.main is not None and is_product(group.main) for group in groups)
    if len(groups) < 2 or products:
        return 0
    ranks = [len(group.result.axes) for group in groups]
    for count in range(min(ranks), 0, -1):
        leading = {group.result.shape[:count] for group in groups}
        if len(leading) == 1 and all(_reads_own_part(kernel, g, groups, count) for g in groups):
            return count
    return 0


def _reads_own_part(kernel: Kernel, group: Group, groups: Sequence[Group], count: int) -> bool:
    """Whether ``group`` reads what the others wrote only at its own leading ``count`` axes."""
    for other in groups:
        if other is group:
            continue
        for stage in {id(s): s for s in (group.result, group.main) if s is not None}.values():
            positions: list[list[Any]] = []
            collect_positions(stage, other.result, group.inlined, positions)
            for position in positions:
                leading = zip(position[:count], stage.axes[:count], strict=True)
                if not all(_is_axis(where, axis, extent) for where, (axis, extent) in leading):
                    return False
    return True

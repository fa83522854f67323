"""Stages that only move elements, read through by what reads them: no index is a quotient or remainder.

    r[t, h, d] = x[t, 64 * h + d];  y[h, d, t] = r[t, h, d]      becomes  y[h, d, t] = x[t, 64 * h + d]

Of a channel shuffle quotients stay: y[p, c] = x[p, c % 2 * 58 + c // 2]. All memory is flat, so that the
result may have an axis for each part of such an index: y[p, a, b] = x[p, b * 58 + a]. Rules then see how
elements lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from edgepack.compiler.schedules.expressions import index, is_movement, loads, rebuild, visit
from edgepack.compiler.schedules.stages import Kernel, Stage

_MOST_SPLITS = 4
"""Of a result's axes: every one needs the whole value anew."""


def read_through(kernel: Kernel) -> Kernel:
    """The kernel without the movements that can be read through; one with a reduction stays as it is."""
    if any(stage.is_reduction for stage in kernel.stages):
        return kernel
    for moving in reversed(kernel.stages):
        if is_movement(moving.value) and not kernel.is_parameter(moving.buffer):
            kernel = _without(kernel, moving)
    return kernel


def _without(kernel: Kernel, moving: Stage) -> Kernel:
    """The kernel without ``moving``; unchanged, where a reader of it would have to divide."""
    parameters, stages = list(kernel.parameters), []
    for stage in kernel.stages:
        if stage is moving:
            continue
        if any(source.same_as(moving.buffer) for source in stage.sources):
            through = _simplified(_reading_through(stage, moving))
            if _division(through) and _may_have_other_axes(kernel, stage):
                through = _split(through)
            if _division(through):
                return kernel
            if through.buffer is not stage.buffer:
                position = kernel.position(stage.buffer)
                assert position is not None
                parameters[position] = through.buffer
            stage = through
        stages.append(stage)
    return replace(kernel, parameters=tuple(parameters), stages=tuple(stages))


def _may_have_other_axes(kernel: Kernel, stage: Stage) -> bool:
    """Whether only the kernel's caller reads ``stage``, all of it: as a vector."""
    position = kernel.position(stage.buffer)
    in_window = kernel.window is not None and kernel.window[0] == position
    return position is not None and not in_window and not kernel.consumers(stage)


def _reading_through(stage: Stage, moving: Stage) -> Stage:
    from tvm import tirx

    def load(source: Any, indices: list[Any], guarded: bool) -> Any:
        if not source.same_as(moving.buffer):
            return tirx.BufferLoad(source, indices)
        axes = {variable: at for (variable, _), at in zip(moving.axes, indices, strict=True)}
        return rebuild(moving.value, axes, lambda s, i, _: tirx.BufferLoad(s, i), replacing=False)

    return replace(stage, value=rebuild(stage.value, {}, load, replacing=False))


def _simplified(stage: Stage) -> Stage:
    """The stage with what the extents of its axes say of its loads' indices."""
    from tvm import ir, sym, tirx

    analyzer = sym.Analyzer()
    for variable, extent in stage.axes:
        analyzer.bind(variable, ir.Range(0, extent))

    def load(source: Any, indices: list[Any], guarded: bool) -> Any:
        return tirx.BufferLoad(source, [analyzer.simplify(at) for at in indices])

    return replace(stage, value=rebuild(stage.value, {}, load, replacing=False))


def _division(stage: Stage) -> tuple[Any, int] | None:
    """A quotient or remainder in an index of the stage, and by what; None if there is none."""
    from tvm import tirx

    for at in [at for load in loads(stage.value) for at in load.indices]:
        for node in visit(at):
            if isinstance(node, (tirx.FloorDiv, tirx.FloorMod)):
                return node.a, int(node.b.value) if isinstance(node.b, tirx.IntImm) else 0
    return None


def _split(stage: Stage) -> Stage:
    """The stage with axes split until no index is divided, as far as that goes."""
    for _ in range(_MOST_SPLITS):
        division = _division(stage)
        if division is None:
            break
        divided, part = division
        used = list(visit(divided))
        for number, (variable, extent) in enumerate(stage.axes):
            is_used = any(node.same_as(variable) for node in used)
            if is_used and 1 < part < extent and extent % part == 0:
                stage = _simplified(_with_two_axes(stage, number, part))
                break
        else:
            break
    return stage


def _with_two_axes(stage: Stage, number: int, part: int) -> Stage:
    """The stage whose axis ``number`` is one of as many parts as there are, and one of ``part`` elements."""
    from tvm import tirx

    variable, extent = stage.axes[number]
    outer, inner = (tirx.Var(f"{variable.name}_{name}", variable.ty) for name in ("part", "at"))
    axes: Sequence[tuple[Any, int]] = (
        *stage.axes[:number],
        (outer, extent // part),
        (inner, part),
        *stage.axes[number + 1 :],
    )
    shape = tuple(extent for _, extent in axes)
    value = rebuild(
        stage.value,
        {variable: outer * index(part) + inner},
        lambda source, indices, _: tirx.BufferLoad(source, indices),
        replacing=False,
    )
    buffer = tirx.decl_buffer(shape, stage.buffer.dtype, stage.buffer.name)
    return replace(stage, buffer=buffer, shape=shape, axes=tuple(axes), value=value)

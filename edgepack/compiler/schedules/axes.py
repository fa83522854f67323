"""How a nest's axes walk through memory: which can be one loop, and which is contiguous."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgepack.compiler.schedules.expressions import index, loads
from edgepack.compiler.schedules.values import index_uses


@dataclass(frozen=True, kw_only=True, eq=False)
class Walk:
    """For each access (a load or the store) its step, in elements, along each axis."""

    steps: tuple[tuple[int | None, ...], ...]
    """steps[access][axis]; None where the position is not linear in that axis."""
    by_value: tuple[bool, ...]
    """For each axis, whether its number itself matters, as in a condition."""


def steps_along(position: Any, axes: Sequence[Any]) -> tuple[int | None, ...]:
    """The coefficient of each variable in a linear index; None for a variable used otherwise."""
    from tvm import sym

    found: list[int | None] = []
    for axis in axes:
        parts = sym.detect_linear_equation(position, [axis])
        if len(parts) != 2 or not hasattr(parts[0], "value"):
            found.append(None)
        else:
            found.append(int(parts[0].value))
    return tuple(found)


def walk_of(value: Any, stored: Any, axes: Sequence[Any]) -> Walk:
    """The walk of ``value`` (its loads from dense vectors) and of the index ``stored``."""
    accesses = [steps_along(stored, axes)]
    accesses += [steps_along(load.indices[0], axes) for load in loads(value)]
    used = index_uses(value)
    return Walk(
        steps=tuple(accesses),
        by_value=tuple(any(use.same_as(axis) for use in used) for axis in axes),
    )


def merge(extents: Sequence[int], walk: Walk) -> list[list[int]]:
    """Axes in groups that can be one loop each, from the outermost in; unit axes are left out."""
    kept = [axis for axis, extent in enumerate(extents) if extent > 1]
    merged: list[list[int]] = []
    for axis in kept:
        if merged and _joins(merged[-1][-1], axis, extents[axis], walk):
            merged[-1].append(axis)
        else:
            merged.append([axis])
    return merged


def _joins(outer: int, inner: int, extent: int, walk: Walk) -> bool:
    """Whether stepping ``outer`` is, in every access, walking past the end of ``inner``."""
    if walk.by_value[outer] or walk.by_value[inner]:
        return False
    for access in walk.steps:
        first, second = access[outer], access[inner]
        if first is None or second is None or first != second * extent:
            return False
    return True


def place(merged: Sequence[Sequence[int]], rank: int, positions: Sequence[Any]) -> list[Any]:
    """The index of every axis where merged loop k stands at ``positions[k]``.

    A merged loop counts along its last axis, beyond that axis's extent: in every access that is the
    same place in memory as stepping the outer axis.
    """
    found = [index(0) for _ in range(rank)]
    for group, position in zip(merged, positions, strict=True):
        found[group[-1]] = position
    return found

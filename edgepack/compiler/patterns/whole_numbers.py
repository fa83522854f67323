"""Whole numbers of float32 that become integers and are made float32 again: QuantizeLinear and back."""

from __future__ import annotations

from typing import Any

from edgepack.compiler.patterns.graph import Graph, Pattern, dtype_of, scalar, shape_of

_SHIFTS = {"add": 1, "subtract": -1}


def _there_and_back(graph: Graph, call: Any) -> Any:
    """float32(int(round(clip(x))) + a - b ...), where all the shifts add up to nothing and all fits."""
    outer = graph.call(call, "astype")
    if outer is None or dtype_of(call) != "float32":
        return None
    number, offset = outer.args[0], 0
    # Types that have to hold the number, each with what is added to it behind that.
    shifts: list[tuple[str, int]] = []
    while (dtype := dtype_of(number)) != "float32":
        shifts.append((dtype, offset))
        step = graph.call(number, "astype", *_SHIFTS)
        if step is None:
            return None
        name = step.op.name.removeprefix("relax.")
        if name in _SHIFTS:
            by = scalar(step.args[1])
            if by is None or shape_of(step.args[0]) != shape_of(number):
                return None
            offset += _SHIFTS[name] * int(by)
        number = step.args[0]
    ends = _ends(graph, number)
    if offset or ends is None:
        return None
    return number if all(_holds(dtype, ends, -behind) for dtype, behind in shifts) else None


def _ends(graph: Graph, number: Any) -> tuple[int, int] | None:
    """The whole numbers that a rounded number was cut to."""
    rounded = graph.call(number, "round")
    clip = None if rounded is None else graph.call(rounded.args[0], "clip")
    if clip is None:
        return None
    low, high = (float(end.value) for end in clip.args[1:])
    return (int(low), int(high)) if low.is_integer() and high.is_integer() else None


def _holds(dtype: str, ends: tuple[int, int], offset: int) -> bool:
    import numpy as np

    if not dtype.startswith(("int", "uint")):
        return False
    info = np.iinfo(dtype)
    return bool(info.min <= ends[0] + offset and ends[1] + offset <= info.max)


PATTERNS: tuple[Pattern, ...] = (_there_and_back,)

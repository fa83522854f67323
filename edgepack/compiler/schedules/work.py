"""How much arithmetic a stage is, for the profile and for deciding what threads are woken for."""

from __future__ import annotations

import math

from edgepack.compiler.schedules.expressions import children
from edgepack.compiler.schedules.stages import Stage


def operations(stage: Stage) -> int:
    """Floating-point operations of a stage: each operator and elementary function counts as one."""
    from tvm import ir, tirx

    count = 0
    stack = [stage.value]
    while stack:
        node = stack.pop()
        if isinstance(node, ir.TensorLoad):
            continue
        if isinstance(node, (tirx.Select, ir.Call)):
            name = getattr(getattr(node, "op", None), "name", "")
            if name == "prim.if_then_else" or isinstance(node, tirx.Select):
                stack.extend(children(node)[1:])
                continue
        found = children(node)
        count += bool(found) and "float" in str(node.ty)
        stack.extend(found)
    extents = [extent for _, extent in (*stage.axes, *stage.reduced)]
    return count * math.prod(extents)

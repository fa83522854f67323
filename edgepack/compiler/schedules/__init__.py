"""Schedule rules: each recognises a kernel and orders its loops for the target, or declines.

``RULES`` is the list, and its order is the priority. A rule is a pure function of a PrimFunc and
the target profile: the same input gives the same loops, with no device and no tuning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from edgepack.compiler.schedules import generic
from edgepack.compiler.workspace import hoist_workspaces

if TYPE_CHECKING:
    from tvm.ir import IRModule
    from tvm.tirx import PrimFunc

    from edgepack.targets import Target


class Rule(Protocol):
    """One way to order the loops of one kind of kernel."""

    def __call__(self, function: PrimFunc, target: Target) -> PrimFunc | None:
        """The scheduled function, or None where the rule does not fit."""


RULES: tuple[Rule, ...] = (generic.schedule,)


def apply(module: IRModule, target: Target) -> IRModule:
    """Schedule every PrimFunc by the first rule that takes it, then move workspaces out.

    Buffers that one loop nest uses alone move into it first, where they are small: they go onto the
    stack. What is left at the root is handed from one nest to the next.
    """
    import tvm
    from tvm import s_tir

    for variable, function in _kernels(module):
        chosen = (rule(function, target) for rule in RULES)
        module[variable] = next((done for done in chosen if done is not None), function)
    settle = [
        s_tir.transform.LowerInitBlock(),
        s_tir.transform.PlanAndUpdateBufferAllocationLocation(),
    ]
    kernels = tvm.IRModule(dict(_kernels(module)))
    for variable, function in _kernels(tvm.transform.Sequential(settle)(kernels)):
        module[variable] = hoist_workspaces(function)
    return module


def _kernels(module: IRModule) -> list[tuple[Any, PrimFunc]]:
    from tvm import tirx

    return [(v, f) for v, f in module.functions.items() if isinstance(f, tirx.PrimFunc)]

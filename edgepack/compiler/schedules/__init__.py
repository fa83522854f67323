"""Schedule rules: each recognises a kernel and orders its loops for the target, or declines.

``RULES`` is the list, and its order is the priority. A rule is a pure function of a PrimFunc and
the target profile: the same input gives the same loops, with no device and no tuning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

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
    """Schedule every PrimFunc by the first rule that takes it, then move workspaces out."""
    from tvm import tirx

    for variable, function in list(module.functions.items()):
        if isinstance(function, tirx.PrimFunc):
            chosen = (rule(function, target) for rule in RULES)
            scheduled = next((done for done in chosen if done is not None), function)
            module[variable] = hoist_workspaces(scheduled)
    return module

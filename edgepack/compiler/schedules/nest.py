"""What a rule is given and what it gives back."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgepack.compiler.schedules.groups import Group
from edgepack.compiler.schedules.register_tile import RegisterFile
from edgepack.compiler.schedules.values import Memory

if TYPE_CHECKING:
    from edgepack.targets import Target

FLOAT_BITS = 32


@dataclass(frozen=True, kw_only=True, eq=False)
class Request:
    """A group to write as loops, for ``target``.

    ``prefix`` are the positions on the result's leading axes that loops around the nest have fixed
    already. ``tasks`` is the number of threads to share the outer loops among: 1 inside such loops
    and for kernels too small to share.
    """

    group: Group
    memory: Memory
    target: Target
    prefix: tuple[Any, ...] = ()
    tasks: int = 1

    def registers(self, step: int) -> RegisterFile:
        """The target's register file, for a tile whose columns lie ``step`` floats apart in A."""
        return RegisterFile.of(self.target, step * FLOAT_BITS // 8)

    @property
    def lanes(self) -> int:
        """Elements of the result in one vector register."""
        bits = int("".join(c for c in str(self.group.result.buffer.dtype) if c.isdigit()) or 8)
        return max(1, self.target.vector_bits // max(bits, FLOAT_BITS))


@dataclass(frozen=True, kw_only=True, eq=False)
class Packing:
    """How a constant parameter is laid out anew at compile time (compiler/packing.py).

    ``parameter`` is the buffer in the kernel; ``arguments`` go to the packer called ``layout``.
    """

    parameter: Any
    layout: str
    arguments: dict[str, Any]

    def to_json(self, position: int) -> str:
        """As it stands in the function's attributes."""
        return json.dumps(
            {"parameter": position, "layout": self.layout} | self.arguments, sort_keys=True
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Nest:
    """A group as loops. ``rule`` is the rule's name; the statements write the group's result.

    ``workspaces`` are buffers of the rule's own, which the plan gives a place in the arena.
    """

    rule: str
    statements: Any
    packings: tuple[Packing, ...] = field(default=())
    workspaces: tuple[Any, ...] = field(default=())


Rule = Callable[[Request], Nest | None]
"""A rule looks at the group and returns its loops, or None where it does not fit.

It is a pure function: the same stages and the same profile give the same loops.
"""

"""The value of any buffer of a kernel at any position: loaded, held in a register, or computed.

A rule asks for the values that its tile needs; stages that are not written to memory are computed
on the way, which is what fusing them means.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgepack.compiler.schedules import emit
from edgepack.compiler.schedules.expressions import (
    children,
    flat_index,
    has_functions,
    index,
    rebuild,
)
from edgepack.compiler.schedules.stages import Kernel, Stage

LINE = 16
"""Elements of four bytes in a cache line."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """One row a thread, of a buffer that is used up row by row; its last axes are those of ``extents``.

    With a ``ring``, the last so many rows: of the axis before them, each takes the place of the one that
    lies ``ring`` above.
    """

    slot: Any
    slots: int
    extents: tuple[int, ...]
    ring: int = 1

    @property
    def stride(self) -> int:
        """Elements from one thread's row to the next: no two share a cache line."""
        rows = self.ring * math.prod(self.extents)
        return rows if self.slots == 1 else -(-rows // LINE) * LINE

    @property
    def elements(self) -> int:
        """Of all threads' rows together."""
        return self.slots * self.stride

    def index(self, position: Sequence[Any]) -> Any:
        """Where the element at ``position`` of the whole buffer is."""
        extents, start = self.extents, len(position) - len(self.extents)
        inside = flat_index(extents, position[start:])
        if self.ring > 1:
            from tvm import tirx

            row = tirx.FloorMod(position[start - 1], index(self.ring))
            inside = row * index(math.prod(extents)) + inside
        return inside if self.slots == 1 else self.slot * index(self.stride) + inside


@dataclass(frozen=True, kw_only=True, eq=False)
class Memory:
    """The kernel's buffers as dense vectors, made when first asked for.

    ``flat`` holds pairs of a buffer of the kernel and its one-dimensional counterpart.
    """

    kernel: Kernel
    flat: list[tuple[Any, Any]] = field(default_factory=list)
    rows: list[tuple[Any, Rows]] = field(default_factory=list)

    def of(self, buffer: Any) -> Any:
        """The dense vector that holds ``buffer``."""
        from tvm import tirx

        for known, dense in self.flat:
            if known.same_as(buffer):
                return dense
        rows = self._rows_of(buffer)
        extent = rows.elements if rows else math.prod(self.kernel.place(buffer)[1])
        dense = tirx.decl_buffer((max(extent, 1),), buffer.dtype, buffer.name)
        self.flat.append((buffer, dense))
        return dense

    def index(self, buffer: Any, position: Sequence[Any]) -> Any:
        """The place in its dense vector of the element of ``buffer`` at ``position``."""
        rows = self._rows_of(buffer)
        if rows is not None:
            return rows.index(position)
        offset, shape = self.kernel.place(buffer)
        inside = flat_index(shape, position)
        return inside + index(offset) if offset else inside

    def keep_rows(self, buffer: Any, rows: Rows) -> None:
        """Keep of ``buffer`` only the row that a thread works on."""
        self.rows[:] = [(known, r) for known, r in self.rows if not known.same_as(buffer)]
        self.rows.append((buffer, rows))

    def _rows_of(self, buffer: Any) -> Rows | None:
        return next((rows for known, rows in self.rows if known.same_as(buffer)), None)

    def replace(self, buffer: Any, dense: Any) -> None:
        """Let ``buffer`` be held by ``dense``, whose layout is the rule's own."""
        self.flat.insert(0, (buffer, dense))


@dataclass(kw_only=True, eq=False)
class Values:
    """Values inside one innermost loop. ``held`` are buffers whose element is in a register here.

    Intermediate values that are needed more than once are kept in registers: ``prepared`` are the
    statements that compute them, to be put before the use; ``temporaries`` the registers.
    """

    memory: Memory
    inlined: Sequence[Stage]
    held: Sequence[tuple[Any, Callable[[list[Any]], Any]]] = ()
    lane: Any = None
    lanes: int = 1
    looking: bool = False
    """Whether the values are only looked at: nothing is prepared, functions stay calls."""
    prepared: list[Any] = field(default_factory=list)
    temporaries: list[Any] = field(default_factory=list)
    _known: list[tuple[Stage, list[Any], Any]] = field(default_factory=list)
    _simple: dict[Stage, bool] = field(default_factory=dict)

    def at(self, buffer: Any, position: list[Any], guarded: bool = False) -> Any:
        """The element of ``buffer`` at ``position`` (one index an axis)."""
        for known, value in self.held:
            if known.same_as(buffer):
                return value(position)
        stage = next((s for s in self.inlined if s.buffer.same_as(buffer)), None)
        if stage is None:
            return emit.load(self.memory.of(buffer), self.memory.index(buffer, position))
        if guarded or self.looking or self._is_simple(stage):
            return self.of_stage(stage, position, guarded)
        for known_stage, where, known in self._known:
            if known_stage is stage and _same_position(where, position):
                return known
        value = self.of_stage(stage, position)
        register = emit.registers(self.lanes, stage.buffer.dtype, f"{stage.name}_value")
        lane = index(0) if self.lane is None else self.lane
        self.temporaries.append(register)
        self.prepared.append(emit.store(register, lane, value))
        self._known.append((stage, position, emit.load(register, lane)))
        return self._known[-1][2]

    def of_stage(self, stage: Stage, position: list[Any], guarded: bool = False) -> Any:
        """What ``stage`` computes at ``position``."""
        axes = {variable: where for (variable, _), where in zip(stage.axes, position, strict=True)}
        return rebuild(stage.value, axes, self.at, guarded, not self.looking)

    def result(self, stage: Stage, position: list[Any]) -> Any:
        """The element of ``stage`` to be stored: its register, where that is held, or its value."""
        for known, value in self.held:
            if known.same_as(stage.buffer):
                return value(position)
        return self.of_stage(stage, position)

    def _is_simple(self, stage: Stage) -> bool:
        """Whether the stage may stand inside its consumer's expression.

        Not if it is read twice, nor with elementary functions: nested ones take TVM's code
        generator a time that doubles with every level.
        """
        if stage not in self._simple:
            once = self.memory.kernel.times_read(stage) < 2
            self._simple[stage] = once and not has_functions(stage.value)
        return self._simple[stage]


def _same_position(one: Sequence[Any], other: Sequence[Any]) -> bool:
    """Whether two positions are the same expressions of the same variables."""
    from tvm_ffi import structural_equal

    return all(structural_equal(a, b) for a, b in zip(one, other, strict=True))


def store_vector(
    memory: Memory,
    stage: Stage,
    inlined: Sequence[Stage],
    lanes: int,
    position: Callable[[Any], list[Any]],
    held_lane: Callable[[Any], Sequence[tuple[Any, Callable[[list[Any]], Any]]]] | None = None,
    register: Any = None,
) -> list[Any]:
    """Statements that write ``lanes`` elements of ``stage``, at ``position(lane)``.

    They go to ``register``, where that is given, and not to memory.
    """
    temporaries: list[Any] = []

    def one(lane: Any) -> list[Any]:
        values = Values(
            memory=memory,
            inlined=inlined,
            held=held_lane(lane) if held_lane else (),
            lane=lane,
            lanes=lanes,
        )
        where = position(lane)
        value = values.result(stage, where)
        temporaries.extend(values.temporaries)
        if register is not None:
            return [*values.prepared, emit.store(register, lane, value)]
        target = memory.of(stage.buffer)
        return [
            *values.prepared,
            emit.store(target, memory.index(stage.buffer, where), value),
        ]

    loop = emit.vectorized(lanes, one)
    return [*emit.allocate(temporaries), loop]


def vector_of(
    memory: Memory,
    stage: Stage,
    inlined: Sequence[Stage],
    lanes: int,
    position: Callable[[Any], list[Any]],
    statements: list[Any],
) -> Any:
    """``lanes`` elements of ``stage`` in a register, which ``statements`` fill first."""
    register = emit.registers(lanes, stage.buffer.dtype, f"{stage.name}_vector")
    statements += emit.allocate([register])
    statements += store_vector(memory, stage, inlined, lanes, position, register=register)
    return emit.load(register, emit.lanes_of(index(0), lanes))


def index_uses(expression: Any) -> list[Any]:
    """Variables that an expression uses as values or in conditions, not only to index a load."""
    from tvm import ir, tirx

    found: list[Any] = []
    stack = [expression]
    while stack:
        node = stack.pop()
        if isinstance(node, ir.TensorLoad):
            continue
        if isinstance(node, tirx.Var):
            found.append(node)
        stack.extend(children(node))
    return found

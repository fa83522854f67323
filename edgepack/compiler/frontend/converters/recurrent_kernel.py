"""The kernel of LSTM, GRU and RNN: for each direction and entry of the batch, the steps in order.

    gates = inputs[step]
    for panels of R:  sums = gates[panel];  for k: sums += hidden[k] * R[panel, k];  gates[panel] = sums
    then the state, element by element

Panels are in recurrent_panels.py. All arrays are float32 or float64. The states' outputs hold the
running states.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from edgepack.compiler.frontend.converters.heaps import Cell, over, statements, store, when
from edgepack.compiler.frontend.converters.recurrent_panels import Tiling, multiply
from edgepack.compiler.schedules.emit import lanes_of
from edgepack.compiler.schedules.expressions import index
from edgepack.compiler.schedules.register_tile import row_tiles

Functions = list[list[Callable[[Any], Any]]]
"""The activation functions of each direction."""


@dataclass(frozen=True, kw_only=True)
class CellKind:
    """What makes one operator."""

    gates: int
    states: int
    activations: tuple[str, ...]
    """Those of ONNX's defaults."""
    step: Callable[[list[Step]], None]
    """New states of some entries, once the hidden state's products have been added."""
    at_once: int
    """So many gates need the hidden state as it is, and nothing more."""
    room: int
    """Hidden sizes of memory that a step works in."""

    def keeps_bias(self, recurrence: Recurrence) -> bool:
        """Whether the recurrent bias of the last gate is added inside the step."""
        return self.at_once < self.gates and recurrence.late_reset


@dataclass(frozen=True, kw_only=True)
class Recurrence:
    """Sizes and attributes of a node."""

    cell: CellKind
    steps: int
    batch: int
    hidden: int
    backward: tuple[bool, ...]
    """Of each direction."""
    clip: float
    """Bound of what goes into an activation function; 0 for none."""
    late_reset: bool
    """GRU's linear_before_reset."""
    coupled: bool
    """LSTM's input_forget."""
    tiling: Tiling
    threads: int
    has_lengths: bool
    has_peepholes: bool


def recurred(*operands: Any, recurrence: Recurrence, functions: Functions) -> Any:
    """Y [steps, directions, batch, hidden], the last states, and the gates of each entry."""
    from tvm import te

    state = (len(recurrence.backward), recurrence.batch, recurrence.hidden)
    gates = (*state[:2], recurrence.cell.room * recurrence.hidden)
    shapes = [(recurrence.steps, *state), *[state] * recurrence.cell.states, gates]

    def body(inputs: list[Any], outputs: list[Any]) -> Any:
        return statements(lambda: _write(inputs, outputs, recurrence, functions))

    dtype = [str(operands[0].dtype)] * len(shapes)
    return te.extern(shapes, list(operands), body, name="recurrent", dtype=dtype)


def _write(
    inputs: list[Any], outputs: list[Any], recurrence: Recurrence, functions: Functions
) -> None:
    """Threads share directions and blocks of the batch, which know nothing of one another."""
    from tvm import tirx

    directions = len(recurrence.backward)
    most = 1 if recurrence.has_lengths else recurrence.tiling.entries
    blocks = row_tiles(recurrence.batch, most, -(-recurrence.threads // directions))
    tasks = directions * sum(count for _, count in blocks)
    with over([tasks], shared=tasks > 1) as (task,):
        before = 0
        for direction in range(directions):
            for (size, start), count in blocks:
                own = tirx.And(task >= before, task < before + count)
                with when(own) if count < tasks else nullcontext():
                    first = index(start) + (task - index(before)) * index(size)
                    entries = [first + index(entry) for entry in range(size)]
                    chosen, backward = functions[direction], recurrence.backward[direction]
                    steps = [
                        Step(inputs, outputs, recurrence, chosen, direction, entry)
                        for entry in entries
                    ]
                    run(steps, backward=backward)
                before += count


def run(entries: list[Step], *, backward: bool) -> None:
    """All steps, for some entries of the batch together; behind a given length the output is zero."""
    from tvm.script.ir_builder import tirx as T

    for entry in entries:
        entry.start()
    length = entries[0].length()
    with T.serial(0, length) as number:
        step = length - 1 - number if backward else number
        for entry in entries:
            entry.take(step)
        cell = entries[0].recurrence.cell
        multiply(entries, lambda entry, row: entry.hidden(row), 0, 0)
        cell.step(entries)
        for entry in entries:
            entry.give(step)
    if entries[0].lengths is not None:
        entries[0].clear(length)


class Step:
    """One step of one direction and entry of the batch."""

    def __init__(
        self,
        inputs: list[Any],
        outputs: list[Any],
        recurrence: Recurrence,
        functions: list[Callable[[Any], Any]],
        direction: int,
        entry: Any,
    ) -> None:
        rest = list(inputs)
        self.products, self.recurrent = rest.pop(0), rest.pop(0)
        self.initial = [rest.pop(0) for _ in range(recurrence.cell.states)]
        self.bias = rest.pop(0) if recurrence.cell.keeps_bias(recurrence) else None
        self.peepholes = rest.pop(0) if recurrence.has_peepholes else None
        self.lengths = rest.pop(0) if recurrence.has_lengths else None
        self.result, *self.states, self.gates = outputs
        self.recurrence, self.functions = recurrence, functions
        self.direction, self.entry = index(direction), entry

    def start(self) -> None:
        """Set the running states to the initial ones."""
        from tvm import tirx

        for state, initial in zip(self.states, self.initial, strict=True):
            with over([self.recurrence.hidden]) as (element,):
                store(state, self.at(element), tirx.BufferLoad(initial, self.at(element)))

    def length(self) -> Any:
        """How many steps the entry has."""
        from tvm import tirx

        steps = index(self.recurrence.steps)
        if self.lengths is None:
            return steps
        given = tirx.BufferLoad(self.lengths, [self.entry])
        return Cell(tirx.max(tirx.min(given, steps), index(0))).value

    def take(self, step: Any) -> None:
        """Set the gates to the inputs' products."""
        from tvm import tirx

        row = step * index(self.recurrence.batch) + self.entry
        with over([self.recurrence.cell.gates * self.recurrence.hidden]) as (gate,):
            product = tirx.BufferLoad(self.products, [self.direction, row, gate])
            store(self.gates, self.at(gate), product)

    def give(self, step: Any) -> None:
        """The hidden state is the step's output."""
        with over([self.recurrence.hidden]) as (element,):
            place = [step, self.direction, self.entry, element]
            store(self.result, place, self.hidden(element))

    def clear(self, length: Any) -> None:
        """Zero behind the entry's length."""
        from tvm import tirx
        from tvm.script.ir_builder import tirx as T

        zero, steps = tirx.const(0, str(self.result.dtype)), index(self.recurrence.steps)
        with T.serial(length, steps) as step, over([self.recurrence.hidden]) as (element,):
            store(self.result, [step, self.direction, self.entry, element], zero)

    def weights(self, panel: Any, row: Any, lanes: int) -> Any:
        """Those of R by which an element of the hidden state goes into the first gates of a panel."""
        from tvm import tirx

        place = [self.direction, panel, row, lanes_of(index(0), lanes)]
        return tirx.BufferLoad(self.recurrent, place)

    def at(self, element: Any) -> list[Any]:
        """Where an element of a state, or a gate, is in its array."""
        return [self.direction, self.entry, element]

    def gate(self, number: Any) -> Any:
        """A gate's sum."""
        from tvm import tirx

        return tirx.BufferLoad(self.gates, self.at(number))

    def hidden(self, element: Any) -> Any:
        """An element of the hidden state."""
        from tvm import tirx

        return tirx.BufferLoad(self.states[0], self.at(element))

    def activated(self, function: int, value: Any) -> Any:
        """An activation function of a value, which is clipped first where the model says so."""
        from tvm import tirx

        clip = self.recurrence.clip
        if clip:
            bounds = [tirx.const(sign * clip, str(value.ty)) for sign in (-1, 1)]
            value = tirx.max(tirx.min(value, bounds[1]), bounds[0])
        return Cell(self.functions[function](Cell(value).value)).value

    def copy_bias(self, into: int) -> None:
        """Set the gates from ``into`` on to the recurrent bias of the last gate."""
        from tvm import tirx

        with over([self.recurrence.hidden]) as (element,):
            bias = tirx.BufferLoad(self.bias, [self.direction, element])
            store(self.gates, self.at(element + index(into)), bias)

    def peeped(self, number: int, element: Any, cell: Any) -> Any:
        """The product of a cell with its peephole: 0 of the input, 1 of the output, 2 of forgetting."""
        from tvm import tirx

        place = element + index(number * self.recurrence.hidden)
        return cell * tirx.BufferLoad(self.peepholes, [self.direction, place])

"""The equations of LSTM, GRU and RNN: new states of a step, once the gates have been added up."""

from __future__ import annotations

from typing import Any

from edgepack.compiler.frontend.converters.heaps import Cell, over, store
from edgepack.compiler.frontend.converters.recurrent_kernel import CellKind, Step
from edgepack.compiler.frontend.converters.recurrent_panels import multiply
from edgepack.compiler.schedules.expressions import index


def _lstm(entries: list[Step]) -> None:
    """ONNX's equations (operator LSTM), gates in the order i, o, f, c."""
    for entry in entries:
        with over([entry.recurrence.hidden]) as (element,):
            _lstm_element(entry, element)


def _lstm_element(step: Step, element: Any) -> None:
    from tvm import tirx

    recurrence = step.recurrence
    old = Cell(tirx.BufferLoad(step.states[1], step.at(element))).value
    places = [element + index(gate * recurrence.hidden) for gate in range(4)]
    i, o, f, c = (Cell(step.gate(place)).value for place in places)
    if recurrence.has_peepholes:
        i, f = i + step.peeped(0, element, old), f + step.peeped(2, element, old)
    taken = step.activated(0, i)
    kept = 1.0 - taken if recurrence.coupled else step.activated(0, f)
    cell = Cell(kept * old + taken * step.activated(1, c)).value
    if recurrence.has_peepholes:
        o = o + step.peeped(1, element, cell)
    shown = step.activated(0, o)
    store(step.states[1], step.at(element), cell)
    # ONNX Runtime clips what the gates are made of, not the cell.
    store(step.states[0], step.at(element), shown * step.functions[2](cell))


def _gru(entries: list[Step]) -> None:
    """ONNX's equations (operator GRU), gates in the order z, r, h."""
    hidden, late = entries[0].recurrence.hidden, entries[0].recurrence.late_reset
    for entry in entries:
        with over([2 * hidden]) as (gate,):
            store(entry.gates, entry.at(gate), entry.activated(0, entry.gate(gate)))
    if late:  # of the candidate, the hidden state's part is kept apart: the reset is for it alone
        for entry in entries:
            entry.copy_bias(into=3 * hidden)
        multiply(entries, lambda entry, row: entry.hidden(row), 1, 3)
    else:
        multiply(
            entries, lambda entry, row: entry.gate(row + index(hidden)) * entry.hidden(row), 1, 2
        )
    for entry in entries:
        with over([hidden]) as (element,):
            _gru_element(entry, element)


def _gru_element(step: Step, element: Any) -> None:
    hidden = step.recurrence.hidden
    candidate = step.gate(element + index(2 * hidden))
    if step.recurrence.late_reset:
        of_state = step.gate(element + index(3 * hidden))
        candidate = candidate + step.gate(element + index(hidden)) * of_state
    new = step.activated(1, candidate)
    z, old = Cell(step.gate(element)).value, Cell(step.hidden(element)).value
    store(step.states[0], step.at(element), (1.0 - z) * new + z * old)


def _rnn(entries: list[Step]) -> None:
    """ONNX's equation (operator RNN), one gate."""
    for entry in entries:
        with over([entry.recurrence.hidden]) as (element,):
            store(entry.states[0], entry.at(element), entry.activated(0, entry.gate(element)))


CELLS = {
    "LSTM": CellKind(
        gates=4,
        states=2,
        activations=("Sigmoid", "Tanh", "Tanh"),
        step=_lstm,
        at_once=4,
        room=4,
    ),
    "GRU": CellKind(
        gates=3, states=1, activations=("Sigmoid", "Tanh"), step=_gru, at_once=2, room=4
    ),
    "RNN": CellKind(gates=1, states=1, activations=("Tanh",), step=_rnn, at_once=1, room=1),
}

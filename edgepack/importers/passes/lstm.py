"""LSTM, unrolled: ONNX's equations (operator LSTM), gates in the order i, o, f, c."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgepack.importers.passes.recurrent import Cell, Direction, State, unroll

if TYPE_CHECKING:
    import onnx


def unroll_lstm(model: onnx.ModelProto) -> bool:
    """Replace each LSTM of fixed length, without peepholes, clipping or coupled gates."""
    return unroll(model, _LSTM)


def _step(direction: Direction, product: str, state: State) -> tuple[str, ...]:
    editor = direction.editor
    gate, candidate, squash = direction.activations
    hidden, cell = state
    if hidden is not None:
        weight = direction.shared("r", lambda: direction.recurrent.T.copy())
        product = editor.emit("Add", [editor.emit("MatMul", [hidden, weight]), product])
    i, o, f, c = editor.split(product, 4, direction.hidden, axis=1)
    new = editor.emit("Mul", [editor.emit(gate, [i]), editor.emit(candidate, [c])])
    if cell is not None:
        new = editor.emit("Add", [editor.emit("Mul", [editor.emit(gate, [f]), cell]), new])
    return editor.emit("Mul", [editor.emit(gate, [o]), editor.emit(squash, [new])]), new


_LSTM = Cell(op_type="LSTM", gates=4, activations=("Sigmoid", "Tanh", "Tanh"), states=2, step=_step)

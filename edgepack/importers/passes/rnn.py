"""RNN, unrolled: ONNX's equation (operator RNN), one gate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgepack.importers.passes.recurrent import Cell, Direction, State, unroll

if TYPE_CHECKING:
    import onnx


def unroll_rnn(model: onnx.ModelProto) -> bool:
    """Replace each RNN of fixed length without clipping."""
    return unroll(model, _RNN)


def _step(direction: Direction, product: str, state: State) -> tuple[str, ...]:
    editor = direction.editor
    (hidden,) = state
    if hidden is not None:
        weight = direction.shared("r", lambda: direction.recurrent.T.copy())
        product = editor.emit("Add", [editor.emit("MatMul", [hidden, weight]), product])
    return (editor.emit(direction.activations[0], [product]),)


_RNN = Cell(op_type="RNN", gates=1, activations=("Tanh",), states=1, step=_step)

"""GRU, unrolled: ONNX's equations (operator GRU), gates in the order z, r, h."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgepack.importers.passes.recurrent import Cell, Direction, State, unroll

if TYPE_CHECKING:
    import onnx


def unroll_gru(model: onnx.ModelProto) -> bool:
    """Replace each GRU of fixed length without clipping, with either place of the reset gate."""
    return unroll(model, _GRU)


def _step(direction: Direction, product: str, state: State) -> tuple[str, ...]:
    """z and r as in every GRU; ``linear_before_reset`` says where r is applied."""
    editor, n = direction.editor, direction.hidden
    gate, candidate = direction.activations
    (hidden,) = state
    r_weight = direction.recurrent
    z_r = editor.fresh("zr")
    h = editor.fresh("h")
    _split_gates(direction, product, z_r, h)
    if hidden is not None:
        weight = direction.shared("rzr", lambda: r_weight[: 2 * n].T.copy())
        z_r = editor.emit("Add", [editor.emit("MatMul", [hidden, weight]), z_r])
    z, r = editor.split(editor.emit(gate, [z_r]), 2, n, axis=1)
    late = bool(direction.attributes.get("linear_before_reset"))
    recurrent = _recurrent_term(direction, hidden, r, late=late)
    if recurrent is not None:
        h = editor.emit("Add", [h, recurrent])
    new = editor.emit(candidate, [h])
    # (1 - z)*new + z*hidden, with one multiplication less
    if hidden is None:
        return (editor.emit("Sub", [new, editor.emit("Mul", [z, new])]),)
    difference = editor.emit("Sub", [hidden, new])
    return (editor.emit("Add", [new, editor.emit("Mul", [z, difference])]),)


def _recurrent_term(direction: Direction, hidden: str | None, r: str, *, late: bool) -> str | None:
    """What the last state adds to the candidate: (r*H)R' or, with the reset late, r*(HR' + b)."""
    editor, n = direction.editor, direction.hidden
    term = None
    if hidden is not None:
        weight = direction.shared("rh", lambda: direction.recurrent[2 * n :].T.copy())
        state = hidden if late else editor.emit("Mul", [r, hidden])
        term = editor.emit("MatMul", [state, weight])
    if not late:
        return term
    bias = direction.shared("rbh", lambda: direction.recurrent_bias[2 * n :].copy())
    total = bias if term is None else editor.emit("Add", [term, bias])
    return editor.emit("Mul", [r, total])


def _split_gates(direction: Direction, product: str, z_r: str, h: str) -> None:
    """Split an input product [batch, 3*hidden] into z and r together, and h."""
    import numpy as np

    editor, n = direction.editor, direction.hidden
    if editor.opset < 13:
        editor.emit_many("Split", [product], [z_r, h], axis=1, split=[2 * n, n])
    else:
        sizes = direction.shared("sizes", lambda: np.array([2 * n, n], np.int64))
        editor.emit_many("Split", [product, sizes], [z_r, h], axis=1)


_GRU = Cell(
    op_type="GRU",
    gates=3,
    activations=("Sigmoid", "Tanh"),
    states=1,
    step=_step,
    separate_bias=lambda attributes: bool(attributes.get("linear_before_reset")),
)

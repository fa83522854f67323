"""Unrolls recurrent operators over a fixed number of steps into matrix products and elementwise ones.

LSTM, GRU and RNN (ONNX operators of those names) differ in the equations of one step; everything else
is here. In the default layout X is [steps, batch, input], W [directions, gates*hidden, input], R
[directions, gates*hidden, hidden], B [directions, 2*gates*hidden], states [directions, batch, hidden].

The product of all steps' inputs with W is one matrix product before the steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgepack.importers.passes.editor import GraphEditor

if TYPE_CHECKING:
    import numpy as np
    import onnx

FEW_STEPS = 8
"""So many are unrolled: then what comes before and after is fused with them."""
MAX_STEPS = 128
"""Of all nodes of a kind that are unrolled for the sake of threads: a step is eleven nodes, and compiling
them takes a tenth of a second. Longer sequences are left to the kernel that goes step by step."""
SHARED_OPERATIONS = 320_000
"""Of a step's matrix product, from which on threads share it; those of the kernel only share directions
and parts of the batch."""

ACTIVATIONS = {"sigmoid": "Sigmoid", "tanh": "Tanh", "relu": "Relu"}
"""Activation functions without parameters that are operators of their own."""


@dataclass(frozen=True, kw_only=True)
class Direction:
    """One direction of a recurrent node, its weights ready to be used by a step.

    ``input_bias`` has been added to the step's input product; ``recurrent_bias`` only where it could not.
    """

    editor: GraphEditor
    hidden: int
    gates: int
    activations: tuple[str, ...]
    attributes: dict[str, Any]
    recurrent: np.ndarray
    """[gates*hidden, hidden]"""
    recurrent_bias: np.ndarray
    """[gates*hidden]"""
    constants: dict[str, str]
    """Initializers that all steps share, by a word of the step's own choice."""

    def shared(self, word: str, make: Callable[[], np.ndarray]) -> str:
        """An initializer that is made in the first step that needs it."""
        if word not in self.constants:
            self.constants[word] = self.editor.constant(word, make())
        return self.constants[word]


State = tuple[str | None, ...]
"""Values [batch, hidden] carried from step to step, the hidden state first; None is all zeros."""
Step = Callable[[Direction, str, State], tuple[str, ...]]
"""(direction, input product [batch, gates*hidden], state) to the next state."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What makes one recurrent operator: its gates, defaults, and one step."""

    op_type: str
    gates: int
    activations: tuple[str, ...]
    """Defaults for one direction."""
    states: int
    """1 with a hidden state alone, 2 with a cell state."""
    step: Step
    separate_bias: Callable[[dict[str, Any]], bool] = lambda attributes: False
    """Whether the last gate's recurrent bias must not be added to the input's."""


def unroll(model: onnx.ModelProto, cell: Cell) -> bool:
    """Replace each node of the cell's type that can be unrolled."""
    if all(node.op_type != cell.op_type for node in model.graph.node):
        return False
    editor, left = GraphEditor(model), MAX_STEPS

    def replace(node: onnx.NodeProto) -> bool:
        nonlocal left
        unrolling = _Unrolling(editor, node, cell)
        done = unrolling.run(left)
        left -= unrolling.steps if done and unrolling.steps > FEW_STEPS else 0
        return done

    return editor.replace(replace)


class _Unrolling:
    """One node on its way."""

    def __init__(self, editor: GraphEditor, node: onnx.NodeProto, cell: Cell) -> None:
        import onnx

        self.editor, self.node, self.cell = editor, node, cell
        self.attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        self.direction = self.attributes.get("direction", b"forward").decode()
        self.directions = 2 if self.direction == "bidirectional" else 1

    def run(self, most: int) -> bool:
        """Emit the unrolled node; False, with nothing emitted, if it is not of a kind we know.

        Nor if it has many steps, and there is no gain in that or they are more than ``most``.
        """
        if self.node.op_type != self.cell.op_type or self.node.domain:
            return False
        activations = self._activations()
        w, r, bias = (self._constant(i) for i in (1, 2, 3))
        shape = self.editor.shape(self.node.input[0])
        if activations is None or shape is None or not self._plain(shape):
            return False
        if w is None or r is None or (self._has(3) and bias is None):
            return False
        self.steps, self.batch, self.width = shape
        self.hidden = r.shape[-1] if r.ndim else 0
        if not self._agree(w, r, bias):
            return False
        if self.steps > FEW_STEPS and not (self._is_shared() and self.steps <= most):
            return False
        if bias is None:
            import numpy as np

            bias = np.zeros((self.directions, 2 * self.cell.gates * self.hidden), w.dtype)
        self._emit(w, r, bias, activations)
        return True

    def _has(self, index: int) -> bool:
        return len(self.node.input) > index and bool(self.node.input[index])

    def _constant(self, index: int) -> np.ndarray | None:
        return self.editor.constant_value(self.node.input[index]) if self._has(index) else None

    def _plain(self, shape: tuple[int, ...]) -> bool:
        """No clipping, peepholes, batch-first layout, coupled gates, nor sequences of several lengths."""
        attributes = self.attributes
        if len(shape) != 3 or shape[0] < 1:
            return False
        if attributes.get("clip") or attributes.get("layout") or attributes.get("input_forget"):
            return False
        if self._has(7):
            return False
        if self._has(4):
            lengths = self._constant(4)
            return lengths is not None and bool((lengths == shape[0]).all())
        return True

    def _is_shared(self) -> bool:
        """Whether threads share the products of a step, where the kernel would leave them to one."""
        operations = 2 * self.batch * self.cell.gates * self.hidden * self.hidden
        return self.directions == 1 and self.batch <= 4 and operations >= SHARED_OPERATIONS

    def _agree(self, w: np.ndarray, r: np.ndarray, bias: np.ndarray | None) -> bool:
        """Whether the weights have the shapes that the operator asks for: inference does not look."""
        d, rows = self.directions, self.cell.gates * self.hidden
        states = (self.node.input[i] for i in range(5, 5 + self.cell.states) if self._has(i))
        return (
            w.shape == (d, rows, self.width)
            and r.shape == (d, rows, self.hidden)
            and (bias is None or bias.shape == (d, 2 * rows))
            and all(self.editor.shape(name) == (d, self.batch, self.hidden) for name in states)
        )

    def _activations(self) -> list[tuple[str, ...]] | None:
        names = [name.decode().lower() for name in self.attributes.get("activations", [])]
        names = names or [name.lower() for name in self.cell.activations] * self.directions
        if "activation_alpha" in self.attributes or "activation_beta" in self.attributes:
            return None
        each = len(self.cell.activations)
        if len(names) != each * self.directions or not all(name in ACTIVATIONS for name in names):
            return None
        words = [ACTIVATIONS[name] for name in names]
        return [tuple(words[i * each : (i + 1) * each]) for i in range(self.directions)]

    def _emit(
        self, w: np.ndarray, r: np.ndarray, bias: np.ndarray, activations: list[tuple[str, ...]]
    ) -> None:
        rows = self.editor.reshape(self.node.input[0], [self.steps * self.batch, self.width])
        initial = [self._initial(5 + i) for i in range(self.cell.states)]
        sequences, finals = [], []
        for d in range(self.directions):
            parts, direction = self._prepare(rows, w[d], r[d], bias[d], activations[d])
            state: State = tuple(states[d] for states in initial)
            backward = self.direction == "reverse" or d == 1
            hidden = [""] * self.steps
            for t in reversed(range(self.steps)) if backward else range(self.steps):
                state = self.cell.step(direction, parts[t], state)
                hidden[t] = str(state[0])
            sequences.append(hidden)
            finals.append(state)
        self._outputs(sequences, finals)

    def _prepare(
        self, rows: str, w: np.ndarray, r: np.ndarray, bias: np.ndarray, words: tuple[str, ...]
    ) -> tuple[list[str], Direction]:
        """The input products of every step, [batch, gates*hidden] each, and what the steps need."""
        import numpy as np

        editor, size = self.editor, self.cell.gates * self.hidden
        input_bias, recurrent_bias = bias[:size].copy(), bias[size:].copy()
        shared = size - self.hidden if self.cell.separate_bias(self.attributes) else size
        input_bias[:shared] += recurrent_bias[:shared]
        recurrent_bias[:shared] = 0
        weight = editor.constant("w", np.ascontiguousarray(w.T))
        product = editor.emit("MatMul", [rows, weight])
        product = editor.emit("Add", [product, editor.constant("b", input_bias)])
        direction = Direction(
            editor=editor,
            hidden=self.hidden,
            gates=self.cell.gates,
            activations=words,
            attributes=self.attributes,
            recurrent=r,
            recurrent_bias=recurrent_bias,
            constants={},
        )
        return editor.split(product, self.steps, self.batch, axis=0), direction

    def _initial(self, index: int) -> list[str | None]:
        """The initial state of each direction as [batch, hidden], None where it is zero."""
        if not self._has(index):
            return [None] * self.directions
        name = self.node.input[index]
        value = self.editor.constant_value(name)
        if value is not None and not value.any():
            return [None] * self.directions
        parts = self.editor.split(name, self.directions, 1, axis=0)
        return [self.editor.reshape(part, [self.batch, self.hidden]) for part in parts]

    def _outputs(self, sequences: list[list[str]], finals: list[State]) -> None:
        editor, outputs = self.editor, [*self.node.output, "", "", ""]
        steps, batch, hidden = self.steps, self.batch, self.hidden
        if outputs[0]:
            each = [
                editor.reshape(editor.concat(sequence, 0), [steps, 1, batch, hidden])
                for sequence in sequences
            ]
            editor.concat(each, 1, outputs[0])
        for i in range(self.cell.states):
            if outputs[1 + i]:
                each = [editor.reshape(str(state[i]), [1, batch, hidden]) for state in finals]
                editor.concat(each, 0, outputs[1 + i])

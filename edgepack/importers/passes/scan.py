"""``Scan`` goes away: its body stands once for each step of the sequence (ONNX operator Scan).

From opset 9 on each scan input has an axis and a direction of its own. In opset 8 tensors begin with a
batch axis, and the sequence is the next one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgepack.importers.passes.editor import GraphEditor
from edgepack.importers.passes.inlining import inline, share_constants, stack
from edgepack.importers.passes.loops import refuse_too_many

if TYPE_CHECKING:
    import onnx

_BATCHED_OPSET = 8
_NEGATIVE_AXES_OPSET = 11
"""The first in which all operators used here count axes from the end, too."""


def unroll_scans(model: onnx.ModelProto) -> bool:
    """Unroll each Scan whose sequence length is known. Raises ModelError for too many nodes."""
    editor = GraphEditor(model)

    def rewrite(node: onnx.NodeProto) -> bool:
        if node.op_type != "Scan" or node.domain:
            return False
        scan = _batched(editor, node) if editor.opset == _BATCHED_OPSET else _plain(editor, node)
        if scan is None:
            return False
        refuse_too_many(node, scan.body, scan.steps * scan.batch)
        scan.emit()
        return True

    return editor.replace(rewrite)


@dataclass(frozen=True, kw_only=True)
class _Scan:
    """One Scan by its parts; directions are 1 for a sequence that is gone through backwards."""

    editor: GraphEditor
    node: onnx.NodeProto
    body: onnx.GraphProto
    states: tuple[str, ...]
    inputs: tuple[str, ...]
    in_axes: tuple[int, ...]
    in_directions: tuple[int, ...]
    out_axes: tuple[int, ...]
    out_directions: tuple[int, ...]
    steps: int
    batch: int = 1
    """Above 1 only in opset 8; there the batch axis comes first."""
    is_batched: bool = False

    def emit(self) -> None:
        """Emit all steps and the outputs."""
        shared = share_constants(self.editor, self.body)
        entries = [self._entry(i, shared) for i in range(self.batch)]
        if not self.is_batched:
            states, sequences = entries[0]
            self._identities(states)
            for values, axis, output in self._sequences(sequences):
                stack(self.editor, values, axis, output)
            return
        for i, output in enumerate(self.node.output[: len(self.states)]):
            if output:
                stack(self.editor, [states[i] for states, _ in entries], 0, output)
        parts = [list(self._sequences(sequences)) for _, sequences in entries]
        for entry_values in zip(*parts, strict=True):
            whole = []
            for values, axis, _ in entry_values:
                whole.append(self.editor.fresh("sequence"))
                stack(self.editor, values, axis, whole[-1])
            stack(self.editor, whole, 0, entry_values[0][2])

    def _identities(self, states: Sequence[str]) -> None:
        for value, output in zip(states, self.node.output, strict=False):
            if output:
                self.editor.emit("Identity", [value], output)

    def _sequences(self, sequences: list[list[str]]) -> list[tuple[list[str], int, str]]:
        """Values in the order in which they are stacked, the axis, and the output, where wanted."""
        outputs = [*self.node.output, *[""] * len(sequences)][len(self.states) :]
        found = []
        for i, values in enumerate(sequences):
            if outputs[i]:
                ordered = values[::-1] if self.out_directions[i] else values
                found.append((ordered, self.out_axes[i], outputs[i]))
        return found

    def _entry(self, number: int, shared: Mapping[str, str]) -> tuple[list[str], list[list[str]]]:
        """Emit the steps of one entry of the batch: its last states, and each step's scan outputs."""
        states = [self._slice(name, number, 0) for name in self.states]
        inputs = [self._slice(name, number, 0) for name in self.inputs]
        count = len(states)
        sequences: list[list[str]] = [[] for _ in self.body.output[count:]]
        names = [value.name for value in self.body.input]
        for step in range(self.steps):
            parts = [
                self._pick(value, self.steps - 1 - step if backwards else step, axis)
                for value, axis, backwards in zip(
                    inputs, self.in_axes, self.in_directions, strict=True
                )
            ]
            values = {**shared, **dict(zip(names, [*states, *parts], strict=True))}
            results = inline(self.editor, self.body, values, f"{number}/{step}/")
            states = results[:count]
            for sequence, result in zip(sequences, results[count:], strict=True):
                sequence.append(result)
        return states, sequences

    def _slice(self, value: str, number: int, axis: int) -> str:
        return self._pick(value, number, axis) if self.is_batched else value

    def _pick(self, value: str, index: int, axis: int) -> str:
        """One entry along an axis, which goes."""
        import numpy as np

        position = self.editor.constant("index", np.array(index, np.int64))
        return self.editor.emit("Gather", [value, position], axis=axis)


def _plain(editor: GraphEditor, node: onnx.NodeProto) -> _Scan | None:
    attributes = _attributes(node)
    body, count = attributes["body"], attributes["num_scan_inputs"]
    states, inputs = node.input[:-count], node.input[-count:]
    outputs = len(body.output) - len(states)
    shapes = [editor.shape(name) for name in inputs]
    if any(shape is None for shape in shapes) or outputs < 0 or len(body.input) != len(node.input):
        return None
    ranks = [len(shape or ()) for shape in shapes]
    axes = attributes.get("scan_input_axes", [0] * count)
    axes = [axis % rank for axis, rank in zip(axes, ranks, strict=True)]
    steps = {(shape or ())[axis] for shape, axis in zip(shapes, axes, strict=True)}
    out_axes = attributes.get("scan_output_axes", [0] * outputs)
    if len(steps) != 1 or 0 in steps:
        return None
    if editor.opset < _NEGATIVE_AXES_OPSET and any(axis < 0 for axis in out_axes):
        return None
    return _Scan(
        editor=editor,
        node=node,
        body=body,
        states=tuple(states),
        inputs=tuple(inputs),
        in_axes=tuple(axes),
        in_directions=tuple(attributes.get("scan_input_directions", [0] * count)),
        out_axes=tuple(out_axes),
        out_directions=tuple(attributes.get("scan_output_directions", [0] * outputs)),
        steps=steps.pop(),
    )


def _batched(editor: GraphEditor, node: onnx.NodeProto) -> _Scan | None:
    attributes = _attributes(node)
    body, count = attributes["body"], attributes["num_scan_inputs"]
    values = node.input[1:]
    states, inputs = values[:-count], values[-count:]
    outputs = len(body.output) - len(states)
    shapes = {editor.shape(name) for name in inputs}
    sizes = {(shape or (0, 0))[:2] for shape in shapes}
    if len(sizes) != 1 or outputs < 0 or len(body.input) != len(values):
        return None
    batch, steps = sizes.pop()
    if not batch or not steps or not _whole(editor, node.input[0], steps):
        return None
    return _Scan(
        editor=editor,
        node=node,
        body=body,
        states=tuple(states),
        inputs=tuple(inputs),
        in_axes=(0,) * count,
        in_directions=tuple(attributes.get("directions", [0] * count)),
        out_axes=(0,) * outputs,
        out_directions=(0,) * outputs,
        steps=steps,
        batch=batch,
        is_batched=True,
    )


def _whole(editor: GraphEditor, lengths: str, steps: int) -> bool:
    """Whether every sequence of the batch is as long as the longest."""
    value = editor.constant_value(lengths) if lengths else None
    return not lengths or (value is not None and bool((value == steps).all()))


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    import onnx

    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}

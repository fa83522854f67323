"""LSTM, GRU and RNN, step by step in one kernel: any length, layout, activation and attribute.

Plain ones of moderate length do not come here: the importer has unrolled them into matrix products
(importers/passes/recurrent.py). The products of all inputs with W are one matrix product before; the
kernel adds those with R.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from edgepack.compiler.frontend.converters.recurrent_activations import activations
from edgepack.compiler.frontend.converters.recurrent_cells import CELLS
from edgepack.compiler.frontend.converters.recurrent_kernel import Recurrence, recurred
from edgepack.compiler.frontend.converters.recurrent_panels import LANES, Tiling, packed, parts_of
from edgepack.compiler.frontend.converters.values import (
    bound,
    cast,
    filled,
    reshaped,
    widened,
    working_type,
)
from edgepack.compiler.frontend.node import Converter, Node, constant, constant_of, shape_of

DOMAIN = ""

_WEIGHTS, _RECURRENT = 1, 2
_BIAS, _LENGTHS, _HIDDEN, _CELL, _PEEPHOLES = 3, 4, 5, 6, 7
"""Inputs that may be missing."""


def _recurrent(node: Node) -> list[Any]:
    from tvm import relax

    cell = CELLS[node.operator]
    batch_first = bool(node.attributes.get("layout", 0))
    data = widened(node, node.inputs[0])
    if batch_first:
        data = node.emit(relax.op.permute_dims(data, [1, 0, 2]))
    steps, batch, _ = shape_of(data)
    direction = node.attributes.get("direction", "forward")
    directions, hidden = node.shape(2)[0], node.shape(2)[2]
    recurrence = Recurrence(
        cell=cell,
        steps=steps,
        batch=batch,
        hidden=hidden,
        backward=tuple(direction == "reverse" or number == 1 for number in range(directions)),
        clip=float(node.attributes.get("clip", 0.0)),
        late_reset=bool(node.attributes.get("linear_before_reset", 0)),
        coupled=bool(node.attributes.get("input_forget", 0)),
        has_lengths=node.has(_LENGTHS),
        has_peepholes=node.operator == "LSTM" and node.has(_PEEPHOLES),
        tiling=Tiling.of(node.target, working_type(node.dtype())),
        threads=node.target.cores if node.target else 1,
    )
    functions = activations(node, cell.activations, directions)
    operands = _operands(node, recurrence, data, batch_first=batch_first)
    found = node.compute(partial(recurred, recurrence=recurrence, functions=functions), *operands)
    outputs = [relax.TupleGetItem(found, number) for number in range(1 + cell.states)]
    return _results(node, [node.emit(output) for output in outputs], batch_first=batch_first)


def _operands(node: Node, recurrence: Recurrence, data: Any, *, batch_first: bool) -> list[Any]:
    """What the kernel takes, in its order."""
    from tvm import relax

    gates = recurrence.cell.gates * recurrence.hidden
    directions, dtype = len(recurrence.backward), working_type(node.dtype())
    input_bias, recurrent_bias = _biases(node, recurrence, gates)
    rows = bound(node, reshaped(data, [1, recurrence.steps * recurrence.batch, shape_of(data)[2]]))
    product = node.emit(relax.op.matmul(rows, _transposed(node)))
    product = node.emit(relax.op.add(product, input_bias))
    states = [
        _initial(node, index, (directions, recurrence.batch, recurrence.hidden), batch_first)
        for index in (_HIDDEN, _CELL)[: recurrence.cell.states]
    ]
    operands = [product, _packed(node, recurrence), *states]
    if recurrence.cell.keeps_bias(recurrence):
        operands.append(recurrent_bias)
    if recurrence.has_peepholes:
        operands.append(bound(node, cast(node.inputs[_PEEPHOLES], dtype)))
    if recurrence.has_lengths:
        operands.append(bound(node, cast(node.inputs[_LENGTHS], "int64")))
    return operands


def _transposed(node: Node) -> Any:
    """W as [directions, columns, gates]."""
    import numpy as np
    from tvm import relax

    value = node.constant(_WEIGHTS)
    if value is not None:
        swapped = np.ascontiguousarray(value.transpose(0, 2, 1))
        return constant(swapped, working_type(node.dtype(_WEIGHTS)))
    return node.emit(relax.op.permute_dims(widened(node, node.inputs[_WEIGHTS]), [0, 2, 1]))


def _packed(node: Node, recurrence: Recurrence) -> Any:
    """R as the kernel reads it, see ``packed``."""
    from tvm import relax

    value = node.constant(_RECURRENT)
    if value is not None:
        return constant(packed(value, recurrence.cell), working_type(node.dtype(_RECURRENT)))
    weights, hidden = widened(node, node.inputs[_RECURRENT]), recurrence.hidden
    found = []
    for part in parts_of(recurrence.cell, hidden):
        rows = node.emit(relax.op.strided_slice(weights, [1], [part.first], [part.stop]))
        if part.missing:
            rows = node.emit(relax.op.nn.pad(rows, [0, 0, 0, part.missing, 0, 0]))
        shape = [len(recurrence.backward), part.panels, LANES, hidden]
        found.append(
            node.emit(relax.op.permute_dims(bound(node, reshaped(rows, shape)), [0, 1, 3, 2]))
        )
    return node.emit(relax.op.concat(found, axis=1)) if len(found) > 1 else found[0]


def _biases(node: Node, recurrence: Recurrence, gates: int) -> tuple[Any, Any]:
    """What is added to the inputs' product [directions, 1, gates], and to the state's last gate."""
    from tvm import relax

    directions, hidden, dtype = (
        len(recurrence.backward),
        recurrence.hidden,
        working_type(node.dtype()),
    )
    if not node.has(_BIAS):
        return constant(0, dtype), filled([directions, hidden], 0, dtype)
    both = widened(node, node.inputs[_BIAS])

    def part(first: int, stop: int) -> Any:
        value = constant_of(both)
        if value is not None:
            return constant(value[:, first:stop], dtype)
        return node.emit(relax.op.strided_slice(both, [1], [first], [stop]))

    of_input, of_state = part(0, gates), part(gates, 2 * gates)
    last = part(2 * gates - hidden, 2 * gates)
    if recurrence.cell.keeps_bias(recurrence):
        first = part(gates, 2 * gates - hidden)
        zeros = filled([directions, hidden], 0, dtype)
        of_state = node.emit(relax.op.concat([first, zeros], axis=1))
    total = node.emit(relax.op.add(of_input, of_state))
    return bound(node, reshaped(total, [directions, 1, gates])), last


def _initial(node: Node, index: int, shape: tuple[int, int, int], batch_first: bool) -> Any:
    from tvm import relax

    if not node.has(index):
        return filled(shape, 0, working_type(node.dtype()))
    state = widened(node, node.inputs[index])
    return node.emit(relax.op.permute_dims(state, [1, 0, 2])) if batch_first else state


def _results(node: Node, values: list[Any], *, batch_first: bool) -> list[Any]:
    from tvm import relax

    if batch_first:
        axes = [[2, 0, 1, 3], *([1, 0, 2] for _ in values[1:])]
        values = [
            node.emit(relax.op.permute_dims(value, order))
            for value, order in zip(values, axes, strict=True)
        ]
    return [cast(value, node.dtype()) for value in values]


CONVERTERS: dict[str, Converter] = dict.fromkeys(CELLS, _recurrent)

"""Attention block by block, where the scores of all heads and rows would leave the second cache level.

    for blocks:  scores = queries @ keys;  weights = softmax(scores, masked);  block = weights @ values
    result = the blocks, side by side

Between the two products lie rows times keys numbers for every head, which are written and read twice:
for 1024 tokens and two heads 8 MB, of which a block is kept in the cache, and only a block in the
arena. Blocks are of heads (or of another batch axis), where all operands are cut, and if there are too
few of them, of one head's rows, where the queries are: a head's keys and values then stay in the cache
from block to block. The kernels are the same for every block of a size; each writes its part of the
result (concat.py), unless joining them became part of another kernel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgepack.compiler.graph import bindings_of, count_uses, emitted_anew
from edgepack.compiler.patterns.graph import Graph, dtype_of, is_plain, operator_of, shape_of
from edgepack.compiler.schedules.register_tile import split_evenly

if TYPE_CHECKING:
    from tvm.ir import IRModule

    from edgepack.targets import Target

_LEAST_ROWS = 16
"""Of a block: with fewer, the products' tiles are too small."""
_MOST_BLOCKS = 64
"""Of one attention; what else there would be of blocks makes them larger."""
_MOST_STEPS = 16
"""Operators between the two products."""
_POINTWISE = frozenset(
    ("add", "subtract", "multiply", "divide", "maximum", "minimum", "where", "tanh", "clip")
)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Step:
    """An operator between the queries and the result, of whose operands one comes from the step before."""

    call: Any
    chained: int | None
    """Which; None for the first step."""


@dataclass(frozen=True, kw_only=True)
class _Cut:
    """Blocks along an axis of the scores and of all that has it."""

    axis: int
    """From the end: -2 for rows."""
    sizes: tuple[int, ...]


_Operands = list[list[Any]]
"""Of each step; None for what the step before made."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Blocks:
    """The steps of one attention, and how they are cut."""

    steps: tuple[_Step, ...]
    cuts: tuple[_Cut, ...]
    """One inside the other."""

    def emit(self, graph: Graph) -> Any:
        """The result; ``graph`` has all that the steps read."""
        operands = [
            [
                None if position == step.chained else graph.renamed(operand)
                for position, operand in enumerate(step.call.args)
            ]
            for step in self.steps
        ]
        return self._emit(graph, operands, self.cuts)

    def _emit(self, graph: Graph, operands: _Operands, cuts: Sequence[_Cut]) -> Any:
        from tvm import relax

        if not cuts:
            return self._block(graph, operands)
        cut, *inner = cuts
        blocks = []
        start = 0
        for size in cut.sizes:
            part = self._part(graph, operands, cut.axis, start, start + size)
            blocks.append(self._emit(graph, part, inner))
            start += size
        return graph.emit(relax.op.concat(blocks, axis=cut.axis))

    def _block(self, graph: Graph, operands: _Operands) -> Any:
        from tvm import ir

        made = None
        for step, own in zip(self.steps, operands, strict=True):
            given = [made if operand is None else operand for operand in own]
            made = graph.emit(ir.Call(step.call.op, given, step.call.attrs, step.call.ty_args))
        return made

    def _part(
        self, graph: Graph, operands: _Operands, axis: int, start: int, stop: int
    ) -> _Operands:
        """The operands' parts that a block needs: all of one that lacks the axis or is spread along it."""
        from tvm import relax

        def part(step: _Step, position: int, operand: Any) -> Any:
            shape = shape_of(operand) or ()
            if len(shape) < -axis or shape[axis] == 1:
                return operand
            if axis == -2 and position == 1 and operator_of(step.call) == "matmul":
                return operand  # its rows are other ones
            return graph.emit(relax.op.strided_slice(operand, [len(shape) + axis], [start], [stop]))

        return [
            [
                None if operand is None else part(step, position, operand)
                for position, operand in enumerate(own)
            ]
            for step, own in zip(self.steps, operands, strict=True)
        ]


def in_blocks(module: IRModule, target: Target) -> IRModule:
    """Cut every attention of ``main`` whose scores take twice the second cache level or more.

    To be called on what ``patterns.recognise`` gives, before anything changes layouts. A ``main`` with
    branches is left as it is.
    """
    main = module["main"]
    bindings = bindings_of(main)
    if not all(is_plain(binding) for binding in bindings):
        return module
    definitions = {binding.var: binding.value for binding in bindings}
    uses = count_uses(bindings, main.body.body)
    found = {}
    for variable, value in definitions.items():
        steps = _steps(value, definitions, uses)
        blocks = _blocks(steps, target) if steps is not None else None
        if blocks is not None:
            found[variable] = blocks
    if not found:
        return module

    def emit(builder: Any, main: Any) -> Any:
        graph = Graph(builder, module, ())
        for binding in bindings:
            blocks = found.get(binding.var)
            graph.add(binding, None if blocks is None else blocks.emit(graph))
        return graph.renamed(main.body.body)

    return emitted_anew(module, emit)


def _steps(value: Any, definitions: dict[Any, Any], uses: dict[Any, int]) -> list[_Step] | None:
    """From the product of queries and keys to ``value``, the product with the values."""
    if operator_of(value) != "matmul" or dtype_of(value) != "float32":
        return None
    chain = _chain(value.args[0], definitions, uses, _MOST_STEPS)
    if chain is None or sum(operator_of(step.call) == "nn.softmax" for step in chain) != 1:
        return None
    steps = [*chain, _Step(call=value, chained=0)]
    scores = shape_of(steps[0].call) or ()
    if any((shape_of(step.call) or ())[-2:] != scores[-2:] for step in chain):
        return None
    if any(len(shape_of(operand) or ()) < 2 for operand in (*steps[0].call.args, value.args[1])):
        return None
    return steps


def _chain(
    expression: Any, definitions: dict[Any, Any], uses: dict[Any, int], most: int
) -> list[_Step] | None:
    """The steps that make ``expression``, none of which anything else reads."""
    call: Any = definitions.get(expression)
    name = operator_of(call)
    if uses.get(expression) != 1 or most == 0 or dtype_of(expression) != "float32":
        return None
    if name == "matmul":
        return [_Step(call=call, chained=None)]
    if name == "nn.softmax":
        if int(call.attrs.axis) % len(shape_of(call) or (1,)) != len(shape_of(call) or ()) - 1:
            return None
    elif name not in _POINTWISE:
        return None
    for position, operand in enumerate(call.args):
        if sum(other.same_as(operand) for other in call.args) > 1:
            continue
        before = _chain(operand, definitions, uses, most - 1)
        if before is not None:
            return [*before, _Step(call=call, chained=position)]
    return None


def _blocks(steps: Sequence[_Step], target: Target) -> _Blocks | None:
    chain = steps[:-1]
    shape = shape_of(chain[0].call) or ()
    size = 4 * math.prod(shape)
    if size < 2 * target.l2_bytes:
        return None
    least = min(-(-2 * size // target.l2_bytes), _MOST_BLOCKS)
    cuts: list[_Cut] = []
    if all(shape_of(step.call) == shape for step in chain):
        for axis in range(-len(shape), -2):
            extent = shape[axis]
            if not _has_axis(steps, axis, extent):
                continue
            if extent >= least:
                cut = _cut_evenly(axis, extent, extent // least)
                return _Blocks(steps=tuple(steps), cuts=(cut,))
            if 1 < extent <= _MOST_BLOCKS // 2:
                cuts.append(_cut_evenly(axis, extent, 1))
                break
    rows = shape[-2]
    if rows < 2 * _LEAST_ROWS:
        return None
    each = -(-least // math.prod(len(cut.sizes) for cut in cuts))
    cuts.append(_cut_evenly(-2, rows, max(_LEAST_ROWS, rows // each)))
    return _Blocks(steps=tuple(steps), cuts=tuple(cuts))


def _has_axis(steps: Sequence[_Step], axis: int, extent: int) -> bool:
    """Whether the result has the axis too, and every operand has it or is spread along it."""
    if (shape_of(steps[-1].call) or ())[axis : axis + 1] != (extent,):
        return False
    operands = [operand for step in steps for operand in step.call.args]
    shapes = [shape_of(operand) or () for operand in operands]
    return all(len(shape) < -axis or shape[axis] in (1, extent) for shape in shapes)


def _cut_evenly(axis: int, extent: int, most: int) -> _Cut:
    most = max(most, -(-extent // _MOST_BLOCKS))
    return _Cut(axis=axis, sizes=tuple(split_evenly(extent, most)))

"""A fused kernel as a list of stages: what each computes, without the loops that TVM gave it.

Relax's fusion leaves one PrimFunc of several blocks, each of which stores one element of one buffer
for every position of its axes:

    buffer[position] = value(position)                        a spatial stage
    buffer[position] = init; buffer[position] ⊕= term(...)    a reduction stage

Rules work on these stages and write the loops anew. A body of another form (a sort, a scatter with
its own loops) has no stages, and keeps the loops it has.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from edgepack.compiler.attributes import CONSTANTS, WINDOW
from edgepack.compiler.schedules.expressions import flat_index, loads, same

if TYPE_CHECKING:
    from tvm.tirx import PrimFunc

_REDUCE = 2
"""tirx.IterVar.CommReduce."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Stage:
    """One buffer's definition. ``axes`` and ``reduced`` are (variable, extent), extents in elements."""

    name: str
    buffer: Any
    shape: tuple[int, ...]
    axes: tuple[tuple[Any, int], ...]
    reduced: tuple[tuple[Any, int], ...]
    value: Any
    """The element's value; in a reduction, the update, which reads the buffer's own element."""
    init: Any
    """What a reduction starts from; None in a spatial stage."""
    annotations: dict[str, Any]

    @cached_property
    def loads(self) -> list[Any]:
        """Every load that the value makes, in order of evaluation."""
        return loads(self.value)

    @property
    def is_reduction(self) -> bool:
        """Whether the stage sums, or otherwise combines, over axes of its own."""
        return bool(self.reduced)

    @cached_property
    def sources(self) -> list[Any]:
        """Buffers that are read, each once, in order of first use, the stage's own left out."""
        found: list[Any] = []
        for load in self.loads:
            if load.source.same_as(self.buffer) or any(load.source.same_as(f) for f in found):
                continue
            found.append(load.source)
        return found


@dataclass(frozen=True, kw_only=True, eq=False)
class Kernel:
    """A PrimFunc's parameters (buffers) and stages, in order of execution."""

    parameters: tuple[Any, ...]
    stages: tuple[Stage, ...]
    constants: frozenset[int]
    """Parameters that are constants of the model at every call."""
    window: tuple[int, int, tuple[int, ...]] | None = None
    """A parameter that is part of a larger tensor: its number, first element, and that shape."""

    def is_parameter(self, buffer: Any) -> bool:
        """Whether ``buffer`` is an input or output of the kernel."""
        return self.position(buffer) is not None

    def position(self, buffer: Any) -> int | None:
        """The index of ``buffer`` among the parameters."""
        for index, parameter in enumerate(self.parameters):
            if parameter.same_as(buffer):
                return index
        return None

    def place(self, buffer: Any) -> tuple[int, tuple[int, ...]]:
        """Where ``buffer`` begins in its memory, in elements, and the shape that memory has."""
        if self.window is not None and self.position(buffer) == self.window[0]:
            return self.window[1], self.window[2]
        return 0, shape_of(buffer)

    def is_constant(self, buffer: Any) -> bool:
        """Whether ``buffer`` is a parameter that is a constant of the model."""
        return self.position(buffer) in self.constants

    def definition(self, buffer: Any) -> Stage | None:
        """The stage that computes ``buffer``; None for an input."""
        for stage in self.stages:
            if stage.buffer.same_as(buffer):
                return stage
        return None

    def times_read(self, stage: Stage) -> int:
        """In how many places ``stage`` is read."""
        return sum(
            load.source.same_as(stage.buffer) for other in self.stages for load in other.loads
        )

    def consumers(self, stage: Stage) -> list[Stage]:
        """The stages that read ``stage``."""
        return [
            other
            for other in self.stages
            if other is not stage and any(s.same_as(stage.buffer) for s in other.sources)
        ]


def shape_of(buffer: Any) -> tuple[int, ...]:
    """A buffer's extents, in elements."""
    return tuple(int(extent) for extent in buffer.shape)


def read_stages(function: PrimFunc) -> Kernel | None:
    """The kernel that ``function`` is, or None if a block of it has another form."""
    from tvm import s_tir, tirx

    realize = function.body
    if not isinstance(realize, s_tir.SBlockRealize):
        return None
    body = realize.block.body
    nests = list(body.seq) if isinstance(body, tirx.SeqStmt) else [body]
    stages = [_read_stage(nest) for nest in nests]
    parameters = tuple(function.params)
    if any(parameter.ty is None or not hasattr(parameter, "shape") for parameter in parameters):
        return None
    if any(stage is None for stage in stages):
        return None
    attributes = function.attrs or {}
    constants = attributes.get(CONSTANTS, ())
    kernel = Kernel(
        parameters=parameters,
        stages=tuple(stage for stage in stages if stage is not None),
        constants=frozenset(int(index) for index in constants),
        window=_window(attributes.get(WINDOW, ())),
    )
    return _without_reshapes(kernel) if _each_defined_once(kernel) else None


def _without_reshapes(kernel: Kernel) -> Kernel:
    """The kernel without stages that only reshape a parameter, or what the last one stores.

    All memory is flat here: the parameter itself has the other shape then. Rules see the axes that
    elements are made or read along, and not quotients and remainders of others.
    """
    parameters, stages = list(kernel.parameters), list(kernel.stages)
    for stage in kernel.stages:
        for buffer in [buffer for buffer in stage.sources if _reshapes(stage, buffer)]:
            given, result = kernel.position(buffer), kernel.position(stage.buffer)
            if kernel.window is not None and kernel.window[0] in (given, result):
                continue
            reads = sum(any(s.same_as(buffer) for s in other.sources) for other in kernel.stages)
            is_made = any(other.buffer.same_as(buffer) for other in stages)
            if result is not None and given is None and is_made and stage is kernel.stages[-1]:
                parameters[result] = buffer
            elif given is not None and result is None and not is_made and reads == 1:
                parameters[given] = stage.buffer
            else:
                continue
            stages.remove(stage)
    return replace(kernel, parameters=tuple(parameters), stages=tuple(stages))


def _reshapes(stage: Stage, buffer: Any) -> bool:
    """Whether ``stage`` is all of ``buffer`` in the same order, under other axes."""
    from tvm import ir, sym

    load = stage.value
    if stage.is_reduction or not isinstance(load, ir.TensorLoad) or not load.source.same_as(buffer):
        return False
    if math.prod(stage.shape) != math.prod(shape_of(buffer)):
        return False
    analyzer = sym.Analyzer()
    for variable, extent in stage.axes:
        analyzer.bind(variable, ir.Range(0, extent))
    there = flat_index(stage.shape, [variable for variable, _ in stage.axes])
    here = flat_index(shape_of(buffer), list(load.indices))
    return bool(analyzer.can_prove_equal(here, there))


def _window(values: Any) -> tuple[int, int, tuple[int, ...]] | None:
    numbers = [int(value) for value in values]
    return (numbers[0], numbers[1], tuple(numbers[2:])) if numbers else None


def _each_defined_once(kernel: Kernel) -> bool:
    """A buffer that two stages write, or one read before it is written, is not a definition."""
    defined: list[Any] = []
    for stage in kernel.stages:
        if any(stage.buffer.same_as(buffer) for buffer in defined):
            return False
        for source in stage.sources:
            later = kernel.definition(source)
            if later is not None and not any(source.same_as(buffer) for buffer in defined):
                return False
        defined.append(stage.buffer)
    return True


def _read_stage(nest: Any) -> Stage | None:
    from tvm import s_tir, tirx

    loops = []
    while isinstance(nest, tirx.For):
        loops.append(nest)
        nest = nest.body
    if not isinstance(nest, s_tir.SBlockRealize):
        return None
    block = nest.block
    store = block.body
    if not isinstance(store, tirx.BufferStore) or block.alloc_buffers or block.match_buffers:
        return None
    variables = [iteration.var for iteration in block.iter_vars]
    if not _covers_everything(nest, loops) or not _stores_at_axes(store, block, variables):
        return None
    init = block.init
    if init is not None and not isinstance(init, tirx.BufferStore):
        return None
    reduced = [axis for axis in block.iter_vars if int(axis.iter_type) == _REDUCE]
    if bool(reduced) != (init is not None):
        return None
    spatial = [axis for axis in block.iter_vars if int(axis.iter_type) != _REDUCE]
    if not store.indices:
        spatial = []  # a scalar: TVM gives it an axis of extent 1 that nothing uses
    try:
        return Stage(
            name=block.name_hint,
            buffer=store.buffer,
            shape=shape_of(store.buffer),
            axes=tuple((axis.var, int(axis.dom.extent)) for axis in spatial),
            reduced=tuple((axis.var, int(axis.dom.extent)) for axis in reduced),
            value=store.value,
            init=None if init is None else _start(init.value),
            annotations={str(key): value for key, value in block.annotations.items()},
        )
    except (TypeError, ValueError):  # an extent that is not a number
        return None


def _start(value: Any) -> Any:
    """What a reduction starts from. TVM's largest and smallest numbers are the finite ones."""
    import numpy as np
    from tvm import tirx

    if not isinstance(value, tirx.FloatImm):
        return value
    dtype = str(value.ty)
    if dtype not in ("float16", "float32", "float64") or abs(value.value) != np.finfo(dtype).max:
        return value
    return tirx.FloatImm(dtype, math.copysign(math.inf, value.value))


def _covers_everything(realize: Any, loops: list[Any]) -> bool:
    """Whether the block runs once for every position of its axes: no predicate, no split loop."""
    block = realize.block
    if len(realize.iter_values) != len(block.iter_vars):
        return False
    predicate = realize.predicate
    if not (hasattr(predicate, "value") and int(predicate.value) == 1):
        return False
    by_loop = [loop.loop_var for loop in loops]
    for value, axis in zip(realize.iter_values, block.iter_vars, strict=True):
        if same(value, 0) and int(axis.dom.extent) == 1:
            continue
        if not any(value.same_as(variable) for variable in by_loop):
            return False
    return all(int(axis.dom.min) == 0 for axis in block.iter_vars)


def _stores_at_axes(store: Any, block: Any, variables: list[Any]) -> bool:
    """Whether the stored position is the spatial axes themselves, in their order."""
    spatial = [
        variable
        for variable, axis in zip(variables, block.iter_vars, strict=True)
        if int(axis.iter_type) != _REDUCE
    ]
    indices = list(store.indices)
    if not indices:
        return all(
            int(axis.dom.extent) == 1 for axis in block.iter_vars if int(axis.iter_type) != _REDUCE
        )
    return len(indices) == len(spatial) and all(
        index.same_as(variable) for index, variable in zip(indices, spatial, strict=True)
    )

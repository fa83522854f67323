"""The static plan: every tensor's place and every kernel call in order, fixed at compile time.

Nothing is decided on the device. A tensor lives in the weights blob, in the arena, or directly in
the caller's input or output; views share their base's place. arena.py lays the arena out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any

from edgepack.artefacts import TensorSpec
from edgepack.compiler.arena import ALIGNMENT, Span, lay_out
from edgepack.compiler.attributes import ELIDED
from edgepack.compiler.packing import pack, packings_of
from edgepack.compiler.tensors import tensor_spec
from edgepack.compiler.workspace import workspaces_of
from edgepack.errors import CompileError

if TYPE_CHECKING:
    from tvm.ir import IRModule


class Place(Enum):
    """Where a tensor's bytes are; the values are those of plan.h."""

    WEIGHTS = 0
    ARENA = 1
    INPUT = 2
    OUTPUT = 3


@dataclass(frozen=True, kw_only=True)
class Slot:
    """A tensor as a kernel sees it: bytes [offset, offset + nbytes) of its place.

    For INPUT and OUTPUT, ``offset`` is the tensor's index instead.
    """

    place: Place
    offset: int
    spec: TensorSpec


@dataclass(frozen=True, kw_only=True)
class KernelCall:
    """One step: ``symbol`` is a kernel of the object file, or None for a copy of args[0] to args[1]."""

    symbol: str | None
    args: tuple[int, ...]
    """Indices into Plan.slots."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Slots, calls, the arena's size and the weights blob."""

    slots: tuple[Slot, ...]
    calls: tuple[KernelCall, ...]
    arena_bytes: int
    weights: bytes


@dataclass(kw_only=True)
class _Root:
    """A tensor with memory of its own, before it has an address."""

    spec: TensorSpec
    place: Place | None
    """None while it may still become an output's own memory; else final."""
    offset: int = 0
    first: int = 0
    last: int = 0


class _Builder:
    """Walks main's bindings and collects roots, views and calls."""

    def __init__(self, module: IRModule) -> None:
        self.module = module
        self.roots: list[_Root] = []
        self.values: dict[Any, tuple[int, TensorSpec]] = {}
        self.tuples: dict[Any, list[Any]] = {}
        self.calls: list[tuple[str | None, tuple[tuple[int, TensorSpec], ...]]] = []
        self.weights = bytearray()
        self.known_constants: dict[bytes, int] = {}
        self.parts: dict[int, int] = {}
        """Roots that are windows of another one, whose memory they share."""

    def add_root(self, spec: TensorSpec, place: Place | None, offset: int = 0) -> int:
        self.roots.append(_Root(spec=spec, place=place, offset=offset))
        return len(self.roots) - 1

    def constant(self, data: Any, layout: str = "") -> tuple[int, TensorSpec]:
        """Put a constant into the weights blob once in each layout, however often it is used."""
        array = data.numpy()
        if layout:
            array = pack(array, layout)
        spec = TensorSpec(name="", dtype=str(array.dtype), shape=tuple(array.shape))
        content = array.tobytes()
        key = hashlib.sha256(f"{spec.dtype}{spec.shape}".encode() + content).digest()
        if key not in self.known_constants:
            self.weights.extend(bytes(-len(self.weights) % ALIGNMENT))
            root = self.add_root(spec, Place.WEIGHTS, len(self.weights))
            self.weights.extend(content)
            self.known_constants[key] = root
        return self.known_constants[key], spec

    def operand(self, expr: Any, layout: str = "") -> tuple[int, TensorSpec]:
        """The root and the view that a call's argument means; ``layout`` is that of a constant."""
        from tvm import ir

        if isinstance(expr, ir.GenericConst):
            return self.constant(expr.value, layout)
        if isinstance(expr, ir.Var) and expr in self.values:
            return self.values[expr]
        raise CompileError(f"the plan cannot pass {type(expr).__name__} {expr} to a kernel")

    def bind(self, variable: Any, value: Any) -> None:
        """One binding of main: an allocation, a view, an alias, a tuple or a kernel call."""
        from tvm import ir

        if isinstance(value, ir.Call) and isinstance(value.op, ir.GlobalVar):
            self.kernel_call(value)
        elif isinstance(value, ir.Call):
            self.builtin_call(variable, value)
        elif isinstance(value, ir.Tuple):
            self.tuples[variable] = list(value.fields)
        elif isinstance(value, ir.TupleGetItem):
            self.values[variable] = self.operand(self.tuples[value.tuple_value][value.index])
        elif isinstance(value, ir.Var) and value in self.tuples:
            self.tuples[variable] = self.tuples[value]
        else:
            self.values[variable] = self.operand(value)

    def builtin_call(self, variable: Any, call: Any) -> None:
        name = call.op.name
        if name == "relax.builtin.alloc_tensor":
            spec = tensor_spec("", variable.ty)
            self.values[variable] = (self.add_root(spec, None), spec)
        elif name == "relax.reshape":
            root, _ = self.operand(call.args[0])
            self.values[variable] = (root, tensor_spec("", variable.ty))
        else:
            raise CompileError(
                f"operator {name} has no kernel for this layout or shape",
                "export the model without it, or with other shapes",
            )

    def kernel_call(self, call: Any) -> None:
        """A PrimFunc call; its workspaces become tensors that live for this call alone."""
        function = self.module[call.op]
        if function.attrs and ELIDED in function.attrs:
            *parts, (whole, _) = [self.operand(argument) for argument in call.args]
            self.parts |= {part: whole for part, _ in parts}
            return
        packings = packings_of(function)
        operands = [
            self.operand(argument, packings.get(position, ""))
            for position, argument in enumerate(call.args)
        ]
        for spec in workspaces_of(function):
            operands.append((self.add_root(spec, Place.ARENA), spec))
        self.calls.append((str(function.attrs["global_symbol"]), tuple(operands)))

    def join_parts(self) -> None:
        """Let every call on a part work on the whole's memory; a whole may be part of another."""

        def joined(root: int, spec: TensorSpec) -> tuple[int, TensorSpec]:
            if root not in self.parts:
                return root, spec
            whole = self.parts[root]
            return joined(whole, self.roots[whole].spec)

        self.calls = [
            (symbol, tuple(joined(root, spec) for root, spec in operands))
            for symbol, operands in self.calls
        ]


def make_plan(
    module: IRModule, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> Plan:
    """Turn the lowered ``main`` into a plan. Raises CompileError for what is not static."""
    main = module["main"]
    builder = _Builder(module)
    for index, (parameter, spec) in enumerate(zip(main.params, inputs, strict=True)):
        builder.values[parameter] = (builder.add_root(spec, Place.INPUT, index), spec)
    for block in main.body.blocks:
        for binding in block.bindings:
            builder.bind(binding.var, binding.value)
    builder.join_parts()
    _bind_outputs(builder, main.body.body, outputs)
    _live_ranges(builder)
    own = [root for i, root in enumerate(builder.roots) if i not in builder.parts]
    in_arena = [root for root in own if root.place is Place.ARENA]
    spans = [Span(nbytes=r.spec.nbytes, first=r.first, last=r.last) for r in in_arena]
    offsets, arena_bytes = lay_out(spans)
    for root, offset in zip(in_arena, offsets, strict=True):
        root.offset = offset
    return _finish(builder, arena_bytes)


def _bind_outputs(builder: _Builder, result: Any, outputs: Sequence[TensorSpec]) -> None:
    """Let the last kernels write into the caller's outputs; copy only what cannot be written so."""
    from tvm import ir

    if isinstance(result, ir.Var) and result in builder.tuples:
        fields = builder.tuples[result]
    else:
        fields = list(result.fields) if isinstance(result, ir.Tuple) else [result]
    for index, (field, spec) in enumerate(zip(fields, outputs, strict=True)):
        position, found = builder.operand(field)
        if found.shape != spec.shape or found.dtype != spec.dtype:
            raise CompileError(
                f"output {spec.name!r} became {found.dtype}{list(found.shape)} in lowering,"
                f" not {spec.dtype}{list(spec.shape)}"
            )
        root = builder.roots[position]
        if root.place is None:
            root.place, root.offset = Place.OUTPUT, index
        else:
            target = builder.add_root(spec, Place.OUTPUT, index)
            builder.calls.append((None, ((position, found), (target, spec))))
    for root in builder.roots:
        root.place = root.place or Place.ARENA


def _live_ranges(builder: _Builder) -> None:
    """First and last call that touches each root; kernels write before others read."""
    touched: set[int] = set()
    for step, (_, operands) in enumerate(builder.calls):
        for position, _ in operands:
            root = builder.roots[position]
            root.first = root.first if position in touched else step
            root.last = step
            touched.add(position)


def _finish(builder: _Builder, arena_bytes: int) -> Plan:
    """Number the slots in order of first use, equal ones once."""
    numbers: dict[Slot, int] = {}
    calls = []
    for symbol, operands in builder.calls:
        args = []
        for position, spec in operands:
            root = builder.roots[position]
            assert root.place is not None
            slot = Slot(place=root.place, offset=root.offset, spec=replace(spec, name=""))
            args.append(numbers.setdefault(slot, len(numbers)))
        calls.append(KernelCall(symbol=symbol, args=tuple(args)))
    return Plan(
        slots=tuple(numbers),
        calls=tuple(calls),
        arena_bytes=arena_bytes,
        weights=bytes(builder.weights),
    )

"""Plan and kernels to what the linker takes: an ELF object and C99 tables.

The tables are those of runtime/plan.h; runtime/edgepack.c walks them. They are code, not a file:
there is nothing to parse on the device.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgepack.artefacts import TensorSpec
from edgepack.compiler import peak
from edgepack.compiler.attributes import ELIDED
from edgepack.compiler.foreign import reason
from edgepack.compiler.lower import llvm_target
from edgepack.compiler.plan import Plan
from edgepack.errors import CompileError

if TYPE_CHECKING:
    from tvm.ir import IRModule

    from edgepack.targets import Target

_DTYPES = {
    "bool": "EP_BOOL",
    "int8": "EP_INT8",
    "uint8": "EP_UINT8",
    "int16": "EP_INT16",
    "uint16": "EP_UINT16",
    "int32": "EP_INT32",
    "uint32": "EP_UINT32",
    "int64": "EP_INT64",
    "uint64": "EP_UINT64",
    "float16": "EP_FLOAT16",
    "float32": "EP_FLOAT32",
    "float64": "EP_FLOAT64",
}

_ALLOCATOR = b"__TVMBackendAllocWorkspace"
"""What an object names if a kernel asks for memory that workspace.py did not move to the arena."""

SYMBOL_PREFIX = "__tvm_ffi_"
"""TVM's prefix for functions with the packed calling convention."""


def emit_kernels(module: IRModule, target: Target) -> bytes:
    """Compile all PrimFuncs, and the peak kernel, into one relocatable ELF object.

    Raises CompileError.
    """
    import tvm
    from tvm import tirx

    functions = {
        variable: function
        for variable, function in module.functions.items()
        if isinstance(function, tirx.PrimFunc) and ELIDED not in (function.attrs or {})
    }
    functions[tvm.ir.GlobalVar(peak.SYMBOL)] = peak.peak_function(target)
    # Assertions would check, at every call, shapes that the plan has fixed.
    # For cores with vectors of any length TVM would turn conditions into masks, and fails on some; the
    # rules leave no conditions in vector loops that are worth it.
    config = {"tirx.disable_assert": True, "tirx.enable_buffer_level_predication": False}
    try:
        with tvm.transform.PassContext(opt_level=3, config=config):
            built = tirx.build(tvm.IRModule(functions), target=llvm_target(target))
        with tempfile.TemporaryDirectory(prefix="edgepack-") as directory:
            path = Path(directory) / "kernels.o"
            built.write_to_file(str(path))
            kernels = path.read_bytes()
    except Exception as error:  # TVM and LLVM raise anything, from ValueError to InternalError
        raise CompileError(
            f"code generation for {target.name} failed: {reason(error)}",
            f"check cpu and features with `edgepack targets {target.name}`",
        ) from error
    if _ALLOCATOR in kernels:
        raise CompileError(
            f"a kernel for {target.name} would allocate memory while it runs",
            "the plan has no place for it; report the model's operators (edgepack inspect MODEL)",
        )
    return kernels


def emit_plan(
    plan: Plan, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], target: Target
) -> str:
    """C source of the plan's tables and of the model's description."""
    symbols = sorted({call.symbol for call in plan.calls if call.symbol} | {peak.SYMBOL})
    measured = peak.Peak.of(target)
    shapes = _Shapes()
    slots = [
        f"{{{s.place.value}, {_DTYPES[s.spec.dtype]}, {len(s.spec.shape)},"
        f" {shapes.index(s.spec.shape)}u, {s.offset}u, {s.spec.nbytes}u}}"
        for s in plan.slots
    ]
    args: list[int] = []
    calls = []
    for call in plan.calls:
        name = SYMBOL_PREFIX + call.symbol if call.symbol else "NULL"
        calls.append(f"{{{name}, {len(args)}u, {len(call.args)}u}}")
        args.extend(call.args)
    described = {"inputs": _described(inputs, shapes), "outputs": _described(outputs, shapes)}
    lines = [
        "/* Made by edgepack: the static plan of one model. */",
        '#include "plan.h"',
        *(f"extern ep_kernel {SYMBOL_PREFIX}{symbol};" for symbol in symbols),
        _table("int64_t", "shapes", [str(extent) for extent in shapes.flat] or ["0"]),
        _table("ep_slot", "slots", slots),
        _table("uint32_t", "args", [str(arg) for arg in args]),
        _table("ep_call", "calls", calls),
        _table("ep_tensor", "inputs", described["inputs"]),
        _table("ep_tensor", "outputs", described["outputs"]),
        "static const ep_model model = {",
        f"    EP_ABI_VERSION, {len(inputs)}u, {len(outputs)}u, {len(slots)}u, {len(calls)}u,",
        f"    {len(args)}u, {plan.arena_bytes}u, {len(plan.weights)}u,",
        f"    inputs, outputs, slots, calls, args, shapes, {target.cores}u,",
        f"    {{{SYMBOL_PREFIX}{peak.SYMBOL}, {measured.values}u, {measured.flops}u}},",
        "};",
        "const ep_model *ep_model_get(void) { return &model; }",
    ]
    return "\n".join(lines) + "\n"


class _Shapes:
    """All shapes in one table, each once."""

    def __init__(self) -> None:
        self.flat: list[int] = []
        self._known: dict[tuple[int, ...], int] = {}

    def index(self, shape: tuple[int, ...]) -> int:
        if shape not in self._known:
            self._known[shape] = len(self.flat)
            self.flat.extend(shape)
        return self._known[shape]


def _described(specs: Sequence[TensorSpec], shapes: _Shapes) -> list[str]:
    return [
        f"{{{_c_string(spec.name)}, {_DTYPES[spec.dtype]}, {len(spec.shape)},"
        f" shapes + {shapes.index(spec.shape)}, {spec.nbytes}u}}"
        for spec in specs
    ]


def _c_string(text: str) -> str:
    """A C string literal; every byte outside plain ASCII letters, digits and _./:- is escaped."""
    plain = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./:-"
    return '"' + "".join(chr(b) if b in plain else f"\\{b:03o}" for b in text.encode()) + '"'


def _table(ctype: str, name: str, rows: Sequence[str]) -> str:
    """A constant array; C99 has no empty ones, so an empty table gets one zero row."""
    body = "".join(f"    {row},\n" for row in rows) or "    {0},\n"
    return f"static const {ctype} {name}[] = {{\n{body}}};"

"""Runs a network's kernels inside the test, in memory whose every boundary is watched.

The compiler's own stages make plan and kernels for a profile whose code this machine runs; the
plan's calls are then made one after the other, as the runtime does. All memory that holds nothing
yet is NaN, also that around each tensor: what a kernel reads too early or outside shows in the
results, what it writes outside is found afterwards.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgepack.artefacts import ImportedModel, TensorSpec
from edgepack.compiler import frontend, lower
from edgepack.compiler.arena import ALIGNMENT
from edgepack.compiler.attributes import ELIDED
from edgepack.compiler.plan import Place, Plan, Slot, make_plan
from edgepack.importers import import_model
from edgepack.targets import Target, load_target
from edgepack.targets.host import runs_natively

os.environ.setdefault("TVM_NUM_THREADS", "4")  # read once, when TVM first starts its threads

Arrays = list[np.ndarray]

_NOTHING = np.frombuffer(b"\x5a\xa5\xe3\x7f", np.uint8)
"""A quiet NaN of float32 that no arithmetic gives; of float64 too, when repeated."""
_GUARD_BYTES = 4 * ALIGNMENT

PROFILES = [
    name
    for name in ("x86-64-v2", "x86-64-v3", "x86-64-v4", "aarch64-generic")
    if runs_natively(load_target(name))
] or ["host"]
"""The profiles whose code this machine runs."""
EXTREMES = list(dict.fromkeys((PROFILES[0], PROFILES[-1])))
"""Those with the shortest and the longest vectors."""


class Guarded:
    """``size`` bytes, aligned as the runtime aligns tensors, with guard bytes before and after."""

    def __init__(self, size: int) -> None:
        whole = np.empty(size + 2 * _GUARD_BYTES + ALIGNMENT, np.uint8)
        start = _GUARD_BYTES + (-(whole.ctypes.data + _GUARD_BYTES)) % ALIGNMENT
        self.whole = whole[start - _GUARD_BYTES : start + size + _GUARD_BYTES]
        self.bytes = self.whole[_GUARD_BYTES : _GUARD_BYTES + size]
        self.clear()

    def clear(self) -> None:
        """Fill everything with what stands for nothing."""
        self.whole[:] = np.resize(_NOTHING, self.whole.size)

    def is_intact(self) -> bool:
        """Whether the guard bytes are as they were."""
        nothing = np.resize(_NOTHING, self.whole.size)
        guards = (slice(0, _GUARD_BYTES), slice(_GUARD_BYTES + self.bytes.size, None))
        return all(np.array_equal(self.whole[part], nothing[part]) for part in guards)


@dataclass(frozen=True, kw_only=True)
class Kernels:
    """A compiled network: ``functions`` by symbol, and for each the rule that wrote it."""

    imported: ImportedModel
    plan: Plan
    functions: Any
    rules: dict[str, str]

    @property
    def rules_called(self) -> list[str]:
        """The rule of each kernel call, in plan order."""
        return [self.rules[call.symbol] for call in self.plan.calls if call.symbol is not None]


def lowered(network: onnx.ModelProto, target: Target) -> tuple[ImportedModel, Any]:
    """The network as it was imported, and its lowered module."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "model.onnx"
        onnx.save(network, path)
        imported = import_model(path, {})
    module = lower.lower(frontend.to_relax(imported.model, target), target)
    return imported, module


def loops_of(network: onnx.ModelProto, target: Target | str) -> str:
    """The kernels that are written for a network, as text."""
    from tvm import tirx

    _, module = lowered(network, load_target(target) if isinstance(target, str) else target)
    functions = [f for f in module.functions.values() if isinstance(f, tirx.PrimFunc)]
    return "\n".join(function.script() for function in functions)


def compile_network(network: onnx.ModelProto, target: Target) -> Kernels:
    """Everything up to machine code, for this process."""
    import tvm
    from tvm import tirx

    imported, module = lowered(network, target)
    functions = {
        variable: function
        for variable, function in module.functions.items()
        if isinstance(function, tirx.PrimFunc) and ELIDED not in (function.attrs or {})
    }
    with tvm.transform.PassContext(opt_level=3, config={"tirx.disable_assert": True}):
        built = tirx.build(tvm.IRModule(functions), target=lower.llvm_target(target))
    return Kernels(
        imported=imported,
        plan=make_plan(module, imported.inputs, imported.outputs),
        functions=built,
        rules={
            str(f.attrs["global_symbol"]): str(f.attrs["edgepack.rule"]) for f in functions.values()
        },
    )


class Memory:
    """Where a plan's tensors are: arena, weights, inputs and outputs, each with its guards."""

    def __init__(self, kernels: Kernels) -> None:
        plan, imported = kernels.plan, kernels.imported
        self.arena, self.weights = Guarded(plan.arena_bytes), Guarded(len(plan.weights))
        self.weights.bytes[:] = np.frombuffer(plan.weights, np.uint8)
        self.inputs = [Guarded(spec.nbytes) for spec in imported.inputs]
        self.outputs = [Guarded(spec.nbytes) for spec in imported.outputs]

    def of(self, slot: Slot) -> np.ndarray:
        """The tensor's array, in place."""
        if slot.place in (Place.INPUT, Place.OUTPUT):
            regions = self.inputs if slot.place is Place.INPUT else self.outputs
            return _view(regions[slot.offset].bytes, slot.spec)
        region = self.arena if slot.place is Place.ARENA else self.weights
        return _view(region.bytes[slot.offset : slot.offset + slot.spec.nbytes], slot.spec)

    def check(self, kernels: Kernels, inputs: Sequence[np.ndarray]) -> None:
        """Nothing was written outside a region, nor into weights and inputs."""
        regions = [self.arena, self.weights, *self.inputs, *self.outputs]
        assert all(region.is_intact() for region in regions)
        assert self.weights.bytes.tobytes() == kernels.plan.weights
        for region, array in zip(self.inputs, inputs, strict=True):
            assert region.bytes.tobytes() == array.tobytes()


def _view(region: np.ndarray, spec: TensorSpec) -> np.ndarray:
    return region.view(spec.dtype).reshape(spec.shape)


Call = Callable[[Any, Arrays], None]


def _in_place(function: Any, arrays: Arrays) -> None:
    import tvm_ffi

    function(*(tvm_ffi.from_dlpack(array) for array in arrays))


def _apart(function: Any, arrays: Arrays) -> None:
    """Call with a copy of every tensor, each between guards of its own."""
    copies = [Guarded(array.nbytes) for array in arrays]
    views = []
    for copy, array in zip(copies, arrays, strict=True):
        copy.bytes[:] = array.reshape(-1).view(np.uint8)
        views.append(copy.bytes.view(array.dtype).reshape(array.shape))
    _in_place(function, views)
    for copy, view, array in zip(copies, views, arrays, strict=True):
        assert copy.is_intact(), f"written outside a tensor of shape {array.shape}"
        array[...] = view


def run(kernels: Kernels, inputs: Sequence[np.ndarray], call: Call = _in_place) -> Arrays:
    """The outputs. With ``call`` _apart, tensors do not lie side by side in the arena."""
    memory = Memory(kernels)
    for region, array in zip(memory.inputs, inputs, strict=True):
        region.bytes[:] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    tensors = [memory.of(slot) for slot in kernels.plan.slots]
    for step in kernels.plan.calls:
        arrays = [tensors[number] for number in step.args]
        if step.symbol is None:
            arrays[1][...] = arrays[0]
        else:
            try:
                call(kernels.functions[step.symbol], arrays)
            except AssertionError as error:
                raise AssertionError(f"{step.symbol}: {error}") from error
    memory.check(kernels, inputs)
    specs = kernels.imported.outputs
    return [
        _view(region.bytes, spec).copy() for region, spec in zip(memory.outputs, specs, strict=True)
    ]


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Share parallel loops among ``count`` threads for as long as this lasts."""
    import tvm_ffi

    configure = tvm_ffi.get_global_func("runtime.config_threadpool")
    configure(_EQUAL_CORES, count)
    assert tvm_ffi.get_global_func("runtime.NumThreads")() == count
    try:
        yield
    finally:
        configure(_EQUAL_CORES, 1)


def check_threads(kernels: Kernels, *counts: int) -> None:
    """As many threads as each of ``counts`` says give the same bytes as one, time and again."""
    inputs = random_inputs(kernels.imported, 3)
    with threads(1):
        alone = [answer.tobytes() for answer in run(kernels, inputs)]
    for count in counts:
        with threads(count):
            for _ in range(3):
                assert [answer.tobytes() for answer in run(kernels, inputs)] == alone


_EQUAL_CORES = 1
"""TVM's mode for threads that may run on any core."""


def weights(*shape: int) -> np.ndarray:
    """Weights of about unit gain for their fan-in; other shapes give other values."""
    generator = np.random.default_rng([len(shape), *shape])
    fan_in = max(int(np.prod(shape[1:])), 1)
    return np.asarray(generator.standard_normal(shape) / np.sqrt(fan_in), np.float32)


def integers(*values: int) -> np.ndarray:
    """A shape, axes, or positions, as ONNX takes them."""
    return np.array(values, np.int64)


def whole(dtype: str, *shape: int, seed: int = 0) -> np.ndarray:
    """Integers over all of the range of an 8-bit type, and more than that of a wider one."""
    generator = np.random.default_rng([seed, *shape])
    low = 0 if dtype.startswith("u") else -128
    span = 256 if dtype.endswith("int8") else 30_000
    return np.asarray(generator.integers(low, low + span, shape), dtype)


def random_inputs(imported: ImportedModel, seed: int) -> Arrays:
    """Values of about unit size; codes from 0 to 9; bytes of any value."""
    generator = np.random.default_rng(seed)

    def one(spec: TensorSpec) -> np.ndarray:
        if spec.dtype.startswith("float"):
            return np.asarray(generator.standard_normal(spec.shape)).astype(spec.dtype)
        if spec.dtype == "bool":
            return np.asarray(generator.integers(0, 2, spec.shape)).astype(spec.dtype)
        high = 256 if spec.dtype.endswith("int8") else 10
        return np.asarray(generator.integers(0, high, spec.shape)).astype(spec.dtype)

    return [one(spec) for spec in imported.inputs]


INTEGER_PRODUCTS = {"ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul"}


def expected(network: onnx.ModelProto, names: Sequence[str], inputs: Arrays) -> Arrays:
    """What onnxruntime makes of the same inputs; of the model as it was, not as it was imported."""
    import onnxruntime
    from onnx.reference import ReferenceEvaluator

    feed = dict(zip(names, inputs, strict=True))
    operators = {node.op_type for node in network.graph.node}
    ranks = {len(value.type.tensor_type.shape.dim) for value in network.graph.input}
    if operators & INTEGER_PRODUCTS and ("QLinearConv" not in operators or ranks == {4}):
        # In onnxruntime they saturate at 16 bits on x86-64 CPUs that lack VNNI. The evaluator's
        # QLinearConv is of images only.
        return list(ReferenceEvaluator(network).run(None, feed))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.x64quantprecision", "1")  # the same of its layers
    session = onnxruntime.InferenceSession(
        network.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, feed))


def error_of(answer: np.ndarray, wanted: np.ndarray) -> float:
    """The largest difference, as a part of the largest value; infinite where NaN was not wanted."""
    assert answer.shape == wanted.shape
    assert answer.dtype == wanted.dtype
    if wanted.dtype.kind != "f":
        return 0.0 if np.array_equal(answer, wanted) else np.inf
    if not np.array_equal(np.isnan(answer), np.isnan(wanted)):
        return np.inf
    finite = np.isfinite(wanted)
    if not np.array_equal(answer[~finite], wanted[~finite], equal_nan=True):
        return np.inf
    if not finite.any():
        return 0.0
    difference = np.abs(answer[finite].astype(np.float64) - wanted[finite])
    return float(difference.max() / max(float(np.abs(wanted[finite]).max()), 1e-6))


def check(
    network: onnx.ModelProto,
    target: Target | str,
    *,
    tolerance: float = 1e-5,
    varies: bool = True,
    positive: bool = False,
    rule: str = "",
    generic: bool = False,
) -> tuple[Kernels, float]:
    """Compile, run on two inputs, compare with onnxruntime: the kernels and the largest error.

    ``varies``: outputs must differ between the inputs. ``positive``: inputs are above zero.
    ``rule`` must have written a kernel; ``generic`` says that the plain loops are no defect here.
    """
    profile = load_target(target) if isinstance(target, str) else target
    kernels = compile_network(network, profile)
    rules = " ".join(kernels.rules_called)
    assert rule in rules
    assert ("generic" in rules) == generic, rules
    worst, answers = 0.0, []
    for seed in (1, 2):
        inputs = random_inputs(kernels.imported, seed)
        if positive:
            inputs = [np.asarray(np.abs(array) + array.dtype.type(0.1)) for array in inputs]
        answer = run(kernels, inputs)
        names = [spec.name for spec in kernels.imported.inputs]
        wanted = expected(network, names, inputs)
        for spec, ours, theirs in zip(kernels.imported.outputs, answer, wanted, strict=True):
            error = error_of(ours, theirs)
            assert error <= tolerance, f"{spec.name}: error {error:.3g} by {kernels.rules_called}"
            worst = max(worst, error)
        answers.append(answer)
    again = run(kernels, inputs, _apart)
    for spec, ours, apart in zip(kernels.imported.outputs, answers[1], again, strict=True):
        assert ours.tobytes() == apart.tobytes(), f"{spec.name}: depends on what lies beside it"
    if varies:
        assert any(a.tobytes() != b.tobytes() for a, b in zip(*answers, strict=True))
    return kernels, worst

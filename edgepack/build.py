"""The stages in order: what the command line and a CI job call.

Each stage stays a function of the one before; this module only carries values from one to the next.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepack import golden as golden_vectors
from edgepack import importers, package, toolchain
from edgepack.artefacts import (
    CheckResult,
    CompiledModel,
    GoldenVectors,
    ImportedModel,
    NativeModel,
    Package,
    PackagedTarget,
)
from edgepack.errors import CompileError, ConfigError, DeviceError, ModelError, ToolchainError
from edgepack.targets import Target
from edgepack.worker import Worker, emulator_for

if TYPE_CHECKING:
    import numpy as np

Say = Callable[[str], None]


def compile_package(
    model: Path,
    *,
    targets: Sequence[Target],
    shapes: Mapping[str, tuple[int, ...]],
    out: Path,
    name: str,
    version: str,
    tolerance: float,
    progress: Say,
    warn: Say,
) -> Package:
    """Import, compile, link and check ``model`` for every target, then write the package ``out``.

    Nothing is written unless every target's worker reproduces ONNX Runtime's outputs here; where a
    target's CPU cannot be had here, not even emulated, that is a warning, and the device decides.
    """
    from edgepack import compiler

    progress(f"reading {model}")
    imported = importers.import_model(model, shapes)
    _refuse_too_many_tensors(imported)
    progress("running the reference in ONNX Runtime")
    golden = golden_vectors.make_golden(imported, tolerance, warn=warn)
    contents = []
    for target in targets:
        progress(f"compiling for {target.name}")
        compiled = compiler.compile_model(imported, target, warn=warn)
        _refuse_over_memory(target, len(compiled.weights), compiled.arena_bytes)
        progress(f"linking for {target.name}")
        native = toolchain.link_worker(compiled)
        progress(f"checking {target.name} against ONNX Runtime")
        check = _check(native, golden, warn)
        contents.append(_content(native, golden, check, imported))
    progress(f"writing {out}")
    return package.write_package(out, name=name, version=version, models=contents)


def run_package(
    opened: Package, inputs: Mapping[str, np.ndarray], target: str | None
) -> dict[str, np.ndarray]:
    """One inference by the package's own worker; arrays by name, dtypes and shapes the model's."""
    chosen = choose_target(opened, target)
    with _worker_of(opened, chosen) as worker:
        return worker.infer(inputs)


def bench_package(
    opened: Package, *, target: str | None, threads: int, seconds: float
) -> dict[str, Any]:
    """Latency of the kernels alone, cold start (process start to first answer), peak memory.

    The inputs are the first golden vector's. A worker runs on one thread; asking for more is a
    ConfigError.
    """
    if threads != 1:
        raise ConfigError(
            f"--threads {threads}: a worker runs on one thread", "leave --threads out, or give 1"
        )
    chosen = choose_target(opened, target)
    vectors = package.read_golden(opened, chosen)
    with _worker_of(opened, chosen) as worker:
        worker.write(vectors.inputs[0])
        worker.run()
        cold_start_ns = time.monotonic_ns() - worker.started_ns
        ready_ns = worker.ready_ns
        times: list[int] = []
        deadline = time.monotonic() + seconds
        while len(times) < 3 or time.monotonic() < deadline:
            times.append(worker.run())
        peak = worker.peak_rss_bytes()
    times.sort()
    return {
        "target": chosen.name,
        "emulated": bool(emulator_for(_profile(chosen))),
        "threads": 1,
        "latency_ms": {
            "median": statistics.median(times) / 1e6,
            "p95": times[min(len(times) - 1, int(len(times) * 0.95))] / 1e6,
            "min": times[0] / 1e6,
        },
        "ready_ms": ready_ns / 1e6,
        "cold_start_ms": cold_start_ns / 1e6,
        "peak_rss_bytes": peak,
        "iterations": len(times),
        "worker_bytes": chosen.sizes[chosen.worker],
        "weights_bytes": chosen.sizes[chosen.weights],
    }


def choose_target(opened: Package, name: str | None) -> PackagedTarget:
    """The target ``name``; without one, the first that this machine runs itself, or the first."""
    if name is None:
        native = [t for t in opened.targets if _profile(t).runs_here()]
        return (native or list(opened.targets))[0]
    for target in opened.targets:
        if target.name == name:
            return target
    raise ConfigError(
        f"{opened.path} has no target {name!r}",
        f"it has {', '.join(target.name for target in opened.targets)}",
    )


def _profile(target: PackagedTarget) -> Target:
    return Target.from_dict(target.model["target"])


@contextmanager
def _worker_of(opened: Package, target: PackagedTarget) -> Iterator[Worker]:
    """The target's worker, running on blobs taken out of the package."""
    emulator = emulator_for(_profile(target))

    def fill(executable: Path, weights: Path) -> None:
        package.extract_blob(opened, target.worker, executable)
        package.extract_blob(opened, target.weights, weights)

    with _running(target, emulator, fill) as worker:
        yield worker


@contextmanager
def _running(
    model: PackagedTarget | CompiledModel,
    emulator: list[str],
    fill: Callable[[Path, Path], None],
) -> Iterator[Worker]:
    """A worker on the executable and the weights that ``fill`` writes to the two paths it gets."""
    with tempfile.TemporaryDirectory(prefix="edgepack-") as directory:
        executable, weights = Path(directory) / "worker", Path(directory) / "weights.bin"
        fill(executable, weights)
        executable.chmod(0o700)
        with Worker(executable, weights, model.inputs, model.outputs, emulator) as worker:
            yield worker


def _refuse_too_many_tensors(imported: ImportedModel) -> None:
    """Before the work of compiling, not after it."""
    for what, specs in (("inputs", imported.inputs), ("outputs", imported.outputs)):
        if not 1 <= len(specs) <= package.MAX_TENSORS:
            raise ModelError(
                f"{imported.source.path} has {len(specs)} {what};"
                f" a package takes 1 to {package.MAX_TENSORS}",
                "cut the model, or concatenate tensors inside it",
            )


def _refuse_over_memory(target: Target, weights_bytes: int, arena_bytes: int) -> None:
    if weights_bytes + arena_bytes > target.memory_bytes:
        raise CompileError(
            f"{target.name} allows a model {target.memory_bytes} bytes of memory; this one needs"
            f" {weights_bytes} for weights and {arena_bytes} for activations",
            "choose smaller input shapes, or a profile with a higher memory_bytes",
        )


def _check(native: NativeModel, golden: GoldenVectors, warn: Say) -> CheckResult:
    """Run the golden vectors on the linked worker. Raises CompileError on a wrong number."""
    target = native.compiled.target
    try:
        emulator = emulator_for(target)
    except ToolchainError as error:
        warn(f"{target.name} not checked here: {error.message} ({error.hint})")
        return CheckResult(max_relative_error=0.0, vectors=0, skipped=error.message)

    def fill(executable: Path, weights: Path) -> None:
        executable.write_bytes(native.worker)
        weights.write_bytes(native.compiled.weights)

    try:
        with _running(native.compiled, emulator, fill) as worker:
            worst = golden_vectors.compare(golden, worker.infer, target.name)
    except DeviceError as error:
        raise CompileError(f"{target.name}: {error.message}", error.hint) from error
    emulated = Path(emulator[0]).name if emulator else ""
    return CheckResult(max_relative_error=worst, vectors=len(golden.inputs), emulator=emulated)


def _content(
    native: NativeModel, golden: GoldenVectors, check: CheckResult, imported: ImportedModel
) -> package.TargetContent:
    compiled = native.compiled
    source = imported.source
    return package.TargetContent(
        target=compiled.target,
        inputs=compiled.inputs,
        outputs=compiled.outputs,
        worker=native.worker,
        weights=compiled.weights,
        arena_bytes=compiled.arena_bytes,
        code_bytes=native.code_bytes,
        golden=golden,
        check=check,
        source={"sha256": source.sha256, "format": source.format, "file": source.path.name},
        tools=_tools(),
    )


def _tools() -> dict[str, str]:
    from importlib.metadata import version

    from edgepack import __version__, compiler

    return {
        "edgepack": __version__,
        "zig": toolchain.zig_version(),
        "onnx": version("onnx"),
        "onnxruntime": version("onnxruntime"),
        **compiler.versions(),
    }

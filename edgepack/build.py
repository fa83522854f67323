"""The stages in order: what the command line and a CI job call.

Each stage stays a function of the one before; this module only carries values from one to the next.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from edgepack import accuracy, importers, package, toolchain
from edgepack import golden as golden_vectors
from edgepack.artefacts import (
    Baseline,
    CheckResult,
    CompiledModel,
    GoldenVectors,
    ImportedModel,
    NativeModel,
    Package,
    PackagedTarget,
)
from edgepack.baseline import measure_baseline
from edgepack.errors import (
    CompileError,
    ConfigError,
    DeviceError,
    ModelError,
    ToolchainError,
)
from edgepack.library import write_library
from edgepack.original import Answered, ask_original
from edgepack.targets import Target
from edgepack.worker import Worker, emulator_for

if TYPE_CHECKING:
    import numpy as np

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class CompileOptions:
    """What a user may say about a compilation, besides model and targets."""

    name: str
    version: str
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Of each input that has a dynamic dimension."""
    format: str | None = None
    """Of the model; None to find it out."""
    importing: importers.ImportOptions = field(default_factory=importers.ImportOptions)
    tolerance: float = 1e-4
    """Largest error, relative to the largest value of an output."""
    check: Path | None = None
    """Inputs of the user's own: an .npz file or a folder."""
    library: Path | None = None
    """Folder for the model as a library of each target, for programs that embed it."""
    baseline: Path | None = None
    """Inputs as they are while all is well, likewise; without it, those of ``check``."""


def compile_package(
    model: Path,
    *,
    targets: Sequence[Target],
    out: Path,
    options: CompileOptions,
    progress: Say,
    warn: Say,
) -> Package:
    """Import, compile, link and check ``model`` for every target, then write the package ``out``.

    Nothing is written unless every target's worker reproduces ONNX Runtime's outputs here, and those
    of the framework that the model comes from; where a target's CPU cannot be had here, not even
    emulated, that is a warning, and the device decides.
    """
    from edgepack import compiler

    progress(f"reading {model}")
    imported = importers.import_model(
        model, options.shapes, options.format, options.importing, compiler.is_supported
    )
    for note in imported.notes:
        warn(note)
    _refuse_too_many_tensors(imported)
    given = accuracy.read_samples(options.check, imported.inputs) if options.check else []
    progress("running the reference in ONNX Runtime")
    golden = golden_vectors.make_golden(imported, options.tolerance, samples=given, warn=warn)
    samples = ask_original(
        imported, given or (golden.inputs if imported.original else ()), progress
    )
    normal = _baseline(imported, options, samples if given else None, progress)
    contents = []
    for target in targets:
        progress(f"compiling for {target.name}")
        compiled = compiler.compile_model(imported, target)
        _refuse_over_memory(target, len(compiled.weights), compiled.arena_bytes)
        progress(f"linking for {target.name}")
        native = toolchain.link_worker(compiled)
        progress(
            f"checking {target.name} against {samples.original if samples else 'ONNX Runtime'}"
        )
        check = _check(native, golden, samples, options.tolerance, warn)
        vectors = golden
        if not check.skipped:
            vectors = golden_vectors.tightened(golden, check.max_relative_error, options.tolerance)
        contents.append(content_of(native, vectors, check, imported, normal))
        if options.library:
            progress(f"writing the library for {target.name} to {options.library}")
            write_library(options.library, compiled)
    progress(f"writing {out}")
    return package.write_package(out, name=options.name, version=options.version, models=contents)


def run_package(
    opened: Package, inputs: Mapping[str, np.ndarray], target: str | None
) -> dict[str, np.ndarray]:
    """One inference by the package's own worker; arrays by name, dtypes and shapes the model's."""
    chosen = choose_target(opened, target)
    with worker_of(opened, chosen) as worker:
        return worker.infer(inputs)


def choose_target(opened: Package, name: str | None) -> PackagedTarget:
    """The target ``name``; without one, the first that this machine runs itself, or the first."""
    if name is None:
        native = [t for t in opened.targets if profile_of(t).runs_here()]
        return (native or list(opened.targets))[0]
    for target in opened.targets:
        if target.name == name:
            return target
    raise ConfigError(
        f"{opened.path} has no target {name!r}",
        f"it has {', '.join(target.name for target in opened.targets)}",
    )


def profile_of(target: PackagedTarget) -> Target:
    """The profile that a package's target was compiled for."""
    return Target.from_dict(target.model["target"])


@contextmanager
def worker_of(
    opened: Package, target: PackagedTarget, *, threads: int | None = None
) -> Iterator[Worker]:
    """The target's worker, running on blobs taken out of the package.

    Without ``threads`` it takes as many as on a device; its results do not depend on the number.
    """
    emulator = emulator_for(profile_of(target))

    def fill(executable: Path, weights: Path) -> None:
        package.extract_blob(opened, target.worker, executable)
        package.extract_blob(opened, target.weights, weights)

    with _running(target, emulator, fill, threads) as worker:
        yield worker


@contextmanager
def _running(
    model: PackagedTarget | CompiledModel,
    emulator: list[str],
    fill: Callable[[Path, Path], None],
    threads: int | None = None,
) -> Iterator[Worker]:
    """A worker on the executable and the weights that ``fill`` writes to the two paths it gets."""
    with tempfile.TemporaryDirectory(prefix="edgepack-") as directory:
        executable, weights = Path(directory) / "worker", Path(directory) / "weights.bin"
        fill(executable, weights)
        executable.chmod(0o700)
        tensors = (model.inputs, model.outputs)
        with Worker(executable, weights, *tensors, emulator, threads) as worker:
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


def _baseline(
    imported: ImportedModel, options: CompileOptions, checked: Answered | None, progress: Say
) -> Baseline | None:
    """Of the data that the user named for it, or else of those for the accuracy gate."""
    samples = checked
    if options.baseline:
        given = accuracy.read_samples(options.baseline, imported.inputs, "--baseline")
        samples = ask_original(imported, given, progress)
    if samples is None:
        return None
    return measure_baseline(samples.inputs, samples.outputs, imported.inputs, imported.outputs)


def _check(
    native: NativeModel,
    golden: GoldenVectors,
    samples: Answered | None,
    tolerance: float,
    warn: Say,
) -> CheckResult:
    """Run golden vectors and samples on the linked worker. Raises CompileError on a wrong number."""
    target = native.compiled.target
    try:
        emulator = emulator_for(target)
    except ToolchainError as error:
        warn(f"{target.name} not checked here: {error.message} ({error.hint})")
        return CheckResult(max_relative_error=0.0, vectors=0, skipped=error.message)

    def fill(executable: Path, weights: Path) -> None:
        executable.write_bytes(native.worker)
        weights.write_bytes(native.compiled.weights)

    found = None
    try:
        with _running(native.compiled, emulator, fill) as worker:
            worst = golden_vectors.compare(golden, worker.infer, target.name)
            if samples:
                found = accuracy.measure(
                    samples.inputs,
                    samples.outputs,
                    worker.infer,
                    original=samples.original,
                    tolerance=max(tolerance, golden.tolerance),
                    what=target.name,
                )
    except DeviceError as error:
        raise CompileError(f"{target.name}: {error.message}", error.hint) from error
    return CheckResult(
        max_relative_error=worst,
        vectors=len(golden.inputs),
        emulator=Path(emulator[0]).name if emulator else "",
        accuracy=found,
    )


def content_of(
    native: NativeModel,
    golden: GoldenVectors,
    check: CheckResult,
    imported: ImportedModel,
    baseline: Baseline | None = None,
) -> package.TargetContent:
    """What a package holds for one target."""
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
        calls=compiled.calls,
        golden=golden,
        check=check,
        source={"sha256": source.sha256, "format": source.format, "file": source.path.name},
        tools=_tools(),
        baseline=baseline,
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

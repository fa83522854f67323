"""What passes from stage to stage: one frozen dataclass for each state of a model.

    SourceModel → ImportedModel → CompiledModel → NativeModel → Package → SignedPackage → PushResult

The type says what has been done. Stages (importers, compiler, toolchain, package, trust, channels)
import these types and never one another.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import onnx

    from edgepack.targets import Target

Tensors = dict[str, "np.ndarray"]
Infer = Callable[[Tensors], Tensors]
"""Inputs by name to outputs by name."""

DTYPE_BYTES = {
    "bool": 1,
    "int8": 1,
    "uint8": 1,
    "int16": 2,
    "uint16": 2,
    "float16": 2,
    "int32": 4,
    "uint32": 4,
    "float32": 4,
    "int64": 8,
    "uint64": 8,
    "float64": 8,
}
"""Element types a model may take or give, by NumPy name, with their size in bytes."""


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """A named tensor with a fixed shape; ``dtype`` is a NumPy name out of DTYPE_BYTES."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Size of the dense row-major tensor in bytes."""
        return math.prod(self.shape) * DTYPE_BYTES[self.dtype]

    def to_dict(self) -> dict[str, Any]:
        """As it stands in model.json and in ``--json`` output."""
        return {"name": self.name, "dtype": self.dtype, "shape": list(self.shape)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> TensorSpec:
        """The inverse of to_dict; the caller has checked the types."""
        return cls(name=data["name"], dtype=data["dtype"], shape=tuple(data["shape"]))


@dataclass(frozen=True, kw_only=True)
class SourceModel:
    """A model file, or a folder that is a model, as the user gave it."""

    path: Path
    format: str
    sha256: str
    """Of the file; of a folder, of the list of its files with their digests, as sha256sum writes it."""


@dataclass(frozen=True, kw_only=True)
class PaddedAxis:
    """An axis of an output that has as many rows as data say, and room for ``bound`` of them."""

    axis: int
    bound: int
    count: str
    """The output, an int64 scalar, that tells how many rows there are; what follows them is zero."""


@dataclass(frozen=True, kw_only=True)
class ImportedModel:
    """A checked ONNX model with fixed shapes, simplified; tensor order is the graph's."""

    source: SourceModel
    model: onnx.ModelProto
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    reference: bytes | None = field(default=None, repr=False)
    """The ONNX model that says what is right, serialised; None where that is the source file."""
    original: Infer | None = field(default=None, repr=False)
    """Runs the model in the framework it comes from; None where that is ONNX."""
    framework: str = "ONNX Runtime"
    """What ``original`` runs in."""
    notes: tuple[str, ...] = ()
    """What the user should know of the import."""
    padded: Mapping[str, tuple[PaddedAxis, ...]] = field(default_factory=dict)
    """Outputs whose shape depends on data, by name: what the original gives is padded to be compared."""


@dataclass(frozen=True, kw_only=True)
class GoldenVectors:
    """Inputs and reference outputs that a device must reproduce before it switches.

    ``tolerance`` bounds, for each output, ``max|y - ref| / max|ref|``; integers and booleans must be
    equal. ``inputs[v][name]`` and ``outputs[v][name]`` are vector v's tensors. ``distinct`` is false
    where no inputs could be found whose outputs differ by more than the tolerance.
    """

    inputs: tuple[dict[str, np.ndarray], ...]
    outputs: tuple[dict[str, np.ndarray], ...]
    tolerance: float
    distinct: bool


@dataclass(frozen=True, kw_only=True)
class KernelInfo:
    """What one call of the plan computes: its kernel, and what it costs at least."""

    name: str
    """Symbol of the kernel; ``copy`` where the runtime copies a tensor itself."""
    rule: str
    """The schedule rule that took it: ``generic`` for the one of last resort, ``copy`` for a copy."""
    flops: int
    """Floating-point operations, a multiply-add counting as two; 0 where nobody counted."""
    nbytes: int
    """Bytes of all its tensors: inputs, weights, outputs, workspaces."""

    def to_dict(self) -> dict[str, Any]:
        """As it stands in model.json and in ``--json`` output."""
        return {"name": self.name, "rule": self.rule, "flops": self.flops, "bytes": self.nbytes}


@dataclass(frozen=True, kw_only=True)
class CompiledModel:
    """Kernels, plan and weights for one target."""

    target: Target
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    kernels: bytes = field(repr=False)
    """Relocatable ELF object."""
    plan_source: str = field(repr=False)
    """C99 tables that runtime/edgepack.c executes."""
    weights: bytes = field(repr=False)
    arena_bytes: int
    calls: tuple[KernelInfo, ...]
    """The calls of the plan, in order."""


@dataclass(frozen=True, kw_only=True)
class NativeModel:
    """A compiled model linked with the runtime: the static worker executable of one target."""

    compiled: CompiledModel
    worker: bytes = field(repr=False)
    code_bytes: int
    """Size of the kernels and the plan in the stripped executable, without the runtime."""


@dataclass(frozen=True, kw_only=True)
class NativeLibrary:
    """A compiled model for programs that embed it through edgepack.h; they bring its weights."""

    shared: bytes = field(repr=False)
    """libmodel.so: exports ``ep_*`` alone, and needs nothing but the target's C library."""
    archive: bytes = field(repr=False)
    """libmodel.a, of position-independent objects."""


@dataclass(frozen=True, kw_only=True)
class OutputAccuracy:
    """How one output of a package compares with the original's over all samples."""

    name: str
    max_error: float
    """Largest ``max|y - ref| / max|ref|`` of a sample."""
    mean_error: float
    """Mean over samples of ``mean|y - ref| / max|ref|``."""
    top1_agreement: float | None
    """Share of rows whose largest value is at the same place; None for what is no row of scores."""

    def to_dict(self) -> dict[str, Any]:
        """As it stands in model.json and in ``compile --json``."""
        return {
            "name": self.name,
            "max_error": self.max_error,
            "mean_error": self.mean_error,
            "top1_agreement": self.top1_agreement,
        }


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """How a package's answers compare with those of the original model."""

    original: str
    """What ran the original model: ``PyTorch``, ``ONNX Runtime``, ..."""
    samples: int
    tolerance: float
    """No output's ``max_error`` is above it."""
    outputs: tuple[OutputAccuracy, ...]

    def to_dict(self) -> dict[str, Any]:
        """As it stands in model.json and in ``compile --json``."""
        return {
            "original": self.original,
            "samples": self.samples,
            "tolerance": self.tolerance,
            "outputs": [output.to_dict() for output in self.outputs],
        }


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """How a native model's outputs compare with the reference on the golden vectors."""

    max_relative_error: float
    vectors: int
    emulator: str = ""
    """qemu-user's name where the worker ran under it, empty where it ran natively."""
    skipped: str = ""
    """Why the worker could not run here; empty where it did."""
    accuracy: Accuracy | None = None
    """The comparison with the original framework, or on the user's own data; None without either."""

    def to_dict(self) -> dict[str, Any]:
        """As it stands in model.json and in ``compile --json``."""
        return {
            "max_relative_error": self.max_relative_error,
            "vectors": self.vectors,
            "emulator": self.emulator,
            "skipped": self.skipped,
            "accuracy": self.accuracy.to_dict() if self.accuracy else None,
        }


@dataclass(frozen=True, kw_only=True)
class TensorBaseline:
    """How the elements of one tensor are spread over samples."""

    count: int
    nan: int
    infinite: int
    mean: float
    """This and the next three: of the finite elements."""
    variance: float
    """Of the population: divided by their number."""
    min: float
    max: float
    edges: tuple[float, ...]
    """Strictly rising. Bin i holds what is at least edge i - 1 and below edge i."""
    counts: tuple[int, ...]
    """Elements of each bin, NaN in none of them; one more than edges."""

    def to_dict(self) -> dict[str, Any]:
        """As it stands in model.json."""
        return {
            "count": self.count,
            "nan": self.nan,
            "infinite": self.infinite,
            "mean": self.mean,
            "variance": self.variance,
            "min": self.min,
            "max": self.max,
            "edges": list(self.edges),
            "counts": list(self.counts),
        }


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """What a model's inputs and outputs look like while all is well; in the model's order.

    None stands for a tensor of which nothing can be said.
    """

    samples: int
    inputs: tuple[TensorBaseline | None, ...]
    outputs: tuple[TensorBaseline | None, ...]

    def to_dict(self) -> dict[str, Any]:
        """As it stands in model.json."""

        def every(tensors: tuple[TensorBaseline | None, ...]) -> list[dict[str, Any] | None]:
            return [tensor.to_dict() if tensor else None for tensor in tensors]

        return {
            "samples": self.samples,
            "inputs": every(self.inputs),
            "outputs": every(self.outputs),
        }


@dataclass(frozen=True, kw_only=True)
class PackagedTarget:
    """One target inside a package, by the digests of its blobs (``sha256:`` + 64 hex digits)."""

    name: str
    arch: str
    manifest: str
    config: str
    worker: str
    weights: str
    metadata: str
    golden: str
    sizes: dict[str, int]
    """Blob size in bytes by digest."""
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    model: dict[str, Any]
    """model.json, parsed."""
    calls: tuple[KernelInfo, ...]
    """The calls of its plan, in order."""


@dataclass(frozen=True, kw_only=True)
class Package:
    """A well-formed .epk file: every blob is there and has the digest it claims; nothing is trusted."""

    path: Path
    digest: str
    """Digest of the canonical index of its targets: the same before and after signing."""
    name: str
    version: str
    targets: tuple[PackagedTarget, ...]
    envelope: bytes | None
    """The DSSE envelope, where there is one."""


@dataclass(frozen=True, kw_only=True)
class SignedPackage:
    """A package whose envelope was checked; only ``trust.verify`` makes one."""

    package: Package
    key_ids: tuple[str, ...]
    """Keys that signed it. Verified against given keys where ``trusted``."""
    trusted: bool
    """False where no public key was at hand here: the device's own keys will decide."""


@dataclass(frozen=True, kw_only=True)
class PushResult:
    """What a channel did."""

    channel: str
    destination: str
    sent_blobs: int
    sent_bytes: int
    skipped_blobs: int
    detail: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class CapturedModel:
    """Captures of one model that a device holds: numbers of the first and the last, and their size."""

    name: str
    first: int
    last: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class DeviceCaptures:
    """All captures that a device holds."""

    device: str
    """An id that the device gave itself when it was first asked."""
    models: tuple[CapturedModel, ...]

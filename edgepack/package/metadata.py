"""model.json: what a target's model takes, gives and needs, and where it came from.

    {"arena_bytes":1204224,"calls":[0,1,1],
     "check":{"accuracy":null,"emulator":"","max_relative_error":2.1e-07,"skipped":"","vectors":3},
     "code_bytes":134144,"format":1,"golden":{"count":3},
     "inputs":[{"dtype":"float32","name":"input","shape":[1,3,224,224]}],
     "kernels":[{"bytes":602112,"flops":0,"name":"pad","rule":"generic"},…],"name":"mobilenet",
     "outputs":[{"dtype":"float32","name":"logits","shape":[1,1000]}],
     "source":{"file":"mobilenet_v2.onnx","format":"onnx","sha256":"…"},
     "target":{"arch":"aarch64","name":"raspberrypi4",…},"tolerance":0.0001,
     "tools":{"edgepack":"0.1.0","llvm":"22.1.0","onnx":"1.23.2","onnxruntime":"1.31.1","tvm":"0.27.0","zig":"0.17.1"},
     "version":"1.2.0","weights_bytes":13994496}

``calls`` are the plan's calls in order, each the index of its line in ``kernels``. Where the package
was compared with the original framework, or on the user's own data, ``accuracy`` is

    {"original":"PyTorch","outputs":[{"max_error":2e-07,"mean_error":3e-08,"name":"logits","top1_agreement":1.0}],
     "samples":100,"tolerance":0.0001}

Where the user gave data, a ``baseline`` is there as well (edgepack.package.baseline); otherwise the key
is absent.

Reading checks every key and type except inside ``target`` and ``tools``: of a target only the name and
the architecture matter to a reader, and a profile may gain fields without a new format.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from edgepack import canonical
from edgepack.artefacts import DTYPE_BYTES, Baseline, CheckResult, KernelInfo, TensorSpec
from edgepack.package import baseline as baselines
from edgepack.package import golden
from edgepack.package.oci import ARCHITECTURES

if TYPE_CHECKING:
    from edgepack.targets import Target

FORMAT = 1
MAX_TENSORS = 64
"""Inputs of a model, and outputs."""
MAX_DIMENSIONS = 16
MAX_TENSOR_NAME = 256
"""Bytes of UTF-8."""
MAX_VECTORS = 64
MAX_IO_BYTES = 1 << 30
"""All inputs and outputs together, each padded as in golden.bin."""

MAX_KERNELS = 4096
"""Different ones; with MAX_CALLS, within what a device's agent reads of one document."""
MAX_CALLS = 1 << 15

_KEYS = (
    *("format", "name", "version", "target", "inputs", "outputs", "arena_bytes", "weights_bytes"),
    *("code_bytes", "tolerance", "golden", "check", "source", "tools", "kernels", "calls"),
)
_KERNEL = ("name", "rule", "flops", "bytes")
_CHECK = ("max_relative_error", "vectors", "emulator", "skipped", "accuracy")
_ACCURACY = ("original", "samples", "tolerance", "outputs")
_OUTPUT_ACCURACY = ("name", "max_error", "mean_error", "top1_agreement")


def build(
    *,
    name: str,
    version: str,
    target: Target,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    arena_bytes: int,
    weights_bytes: int,
    code_bytes: int,
    calls: Sequence[KernelInfo],
    tolerance: float,
    vectors: int,
    check: CheckResult,
    source: dict[str, str],
    tools: dict[str, str],
    baseline: Baseline | None = None,
) -> bytes:
    """The bytes of model.json; what a reader would refuse is a MalformedError here already."""
    kernels = {kernel: number for number, kernel in enumerate(dict.fromkeys(calls))}
    data = canonical.encode(
        {
            "format": FORMAT,
            "name": name,
            "version": version,
            "target": target.to_dict(),
            "inputs": [spec.to_dict() for spec in inputs],
            "outputs": [spec.to_dict() for spec in outputs],
            "arena_bytes": arena_bytes,
            "weights_bytes": weights_bytes,
            "code_bytes": code_bytes,
            "kernels": [kernel.to_dict() for kernel in kernels],
            "calls": [kernels[kernel] for kernel in calls],
            "tolerance": tolerance,
            "golden": {"count": vectors},
            "check": check.to_dict(),
            "source": source,
            "tools": tools,
            **({"baseline": baseline.to_dict()} if baseline else {}),
        }
    )
    parse(data, "model.json")
    return data


def parse(data: bytes, where: str) -> dict[str, Any]:
    """Read model.json; anything that ``build`` does not write is a MalformedError."""
    model = canonical.members(canonical.decode(data, where), where, _KEYS, ("baseline",))
    canonical.integer(model["format"], f"{where}.format", FORMAT, FORMAT)
    for key in ("name", "version"):
        canonical.text(model[key], f"{where}.{key}")
    for key in ("arena_bytes", "weights_bytes", "code_bytes"):
        canonical.integer(model[key], f"{where}.{key}")
    if not 0 < canonical.number(model["tolerance"], f"{where}.tolerance") <= 1:
        raise canonical.MalformedError(f"{where}.tolerance is not above 0 and at most 1")
    _check_target(model["target"], f"{where}.target")
    _check_golden(model["golden"], f"{where}.golden")
    _check_check(model["check"], f"{where}.check")
    _check_source(model["source"], f"{where}.source")
    canonical.texts(model["tools"], f"{where}.tools")
    calls(model, where)
    inputs, outputs = tensors(model, "inputs", where), tensors(model, "outputs", where)
    specs = (*inputs, *outputs)
    canonical.integer(golden.vector_bytes(specs), f"{where}: a vector", 1, MAX_IO_BYTES)
    if "baseline" in model:
        baselines.check(model["baseline"], f"{where}.baseline", len(inputs), len(outputs))
    return model


def tensors(model: dict[str, Any], key: str, where: str) -> tuple[TensorSpec, ...]:
    """The ``inputs`` or ``outputs`` of a model.json, checked."""
    entries = canonical.items(model[key], f"{where}.{key}", MAX_TENSORS)
    specs = tuple(_tensor(entry, f"{where}.{key}[{i}]") for i, entry in enumerate(entries))
    if not specs:
        raise canonical.MalformedError(f"{where}.{key} is empty")
    names = [spec.name for spec in specs]
    if len(set(names)) != len(names):
        raise canonical.MalformedError(f"{where}.{key} has two tensors of one name")
    return specs


def calls(model: dict[str, Any], where: str) -> tuple[KernelInfo, ...]:
    """The plan's calls of a model.json, checked."""
    entries = canonical.items(model["kernels"], f"{where}.kernels", MAX_KERNELS)
    kernels = [_kernel(entry, f"{where}.kernels[{i}]") for i, entry in enumerate(entries)]
    numbers = canonical.items(model["calls"], f"{where}.calls", MAX_CALLS)
    for number in numbers:
        canonical.integer(number, f"{where}.calls", 0, len(kernels) - 1)
    return tuple(kernels[number] for number in numbers)


def _kernel(value: object, where: str) -> KernelInfo:
    entry = canonical.members(value, where, _KERNEL)
    return KernelInfo(
        name=canonical.text(entry["name"], f"{where}.name"),
        rule=canonical.text(entry["rule"], f"{where}.rule"),
        flops=canonical.integer(entry["flops"], f"{where}.flops"),
        nbytes=canonical.integer(entry["bytes"], f"{where}.bytes"),
    )


def _tensor(value: object, where: str) -> TensorSpec:
    entry = canonical.members(value, where, ("name", "dtype", "shape"))
    name = canonical.text(entry["name"], f"{where}.name")
    if not 1 <= len(name.encode()) <= MAX_TENSOR_NAME:
        raise canonical.MalformedError(f"{where}.name has not 1 to {MAX_TENSOR_NAME} bytes")
    dtype = canonical.text(entry["dtype"], f"{where}.dtype")
    if dtype not in DTYPE_BYTES:
        raise canonical.MalformedError(
            f"{where}.dtype {dtype!r} is none of {', '.join(DTYPE_BYTES)}"
        )
    shape = canonical.items(entry["shape"], f"{where}.shape", MAX_DIMENSIONS)
    for extent in shape:
        canonical.integer(extent, f"{where}.shape", 1, MAX_IO_BYTES)
    return TensorSpec(name=name, dtype=dtype, shape=tuple(shape))


def _check_target(value: object, where: str) -> None:
    target = canonical.mapping(value, where)
    for key in ("name", "arch"):
        canonical.text(target.get(key), f"{where}.{key}")
    if target["arch"] not in ARCHITECTURES:
        raise canonical.MalformedError(
            f"{where}.arch {target['arch']!r} is none of {', '.join(ARCHITECTURES)}"
        )


def _check_golden(value: object, where: str) -> None:
    described = canonical.members(value, where, ("count",))
    canonical.integer(described["count"], f"{where}.count", 1, MAX_VECTORS)


def _check_check(value: object, where: str) -> None:
    check = canonical.members(value, where, _CHECK)
    canonical.number(check["max_relative_error"], f"{where}.max_relative_error")
    canonical.integer(check["vectors"], f"{where}.vectors")
    canonical.text(check["emulator"], f"{where}.emulator")
    canonical.text(check["skipped"], f"{where}.skipped")
    if check["accuracy"] is not None:
        _check_accuracy(check["accuracy"], f"{where}.accuracy")


def _check_accuracy(value: object, where: str) -> None:
    accuracy = canonical.members(value, where, _ACCURACY)
    canonical.text(accuracy["original"], f"{where}.original")
    canonical.integer(accuracy["samples"], f"{where}.samples", 1)
    canonical.number(accuracy["tolerance"], f"{where}.tolerance")
    for entry in canonical.items(accuracy["outputs"], f"{where}.outputs", MAX_TENSORS):
        output = canonical.members(entry, f"{where}.outputs", _OUTPUT_ACCURACY)
        canonical.text(output["name"], f"{where}.outputs.name")
        canonical.number(output["max_error"], f"{where}.outputs.max_error")
        canonical.number(output["mean_error"], f"{where}.outputs.mean_error")
        if output["top1_agreement"] is not None:
            canonical.number(output["top1_agreement"], f"{where}.outputs.top1_agreement")


def _check_source(value: object, where: str) -> None:
    source = canonical.members(value, where, ("sha256", "format", "file"))
    canonical.hexadecimal(source["sha256"], f"{where}.sha256")
    canonical.text(source["format"], f"{where}.format")
    canonical.text(source["file"], f"{where}.file")

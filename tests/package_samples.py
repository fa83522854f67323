"""Small packages for tests, and a way to falsify them with every digest made right again."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from edgepack.artefacts import CheckResult, GoldenVectors, KernelInfo, Package, TensorSpec
from edgepack.package import TargetContent, attach_envelope, write_package
from edgepack.package.tar import TarWriter
from edgepack.targets import load_target
from edgepack.trust import PrivateKey, sign

INPUTS = (TensorSpec(name="x", dtype="float32", shape=(1, 3)),)
OUTPUTS = (
    TensorSpec(name="y", dtype="float32", shape=(1, 2)),
    TensorSpec(name="label", dtype="int64", shape=()),
)

CALLS = (
    KernelInfo(name="dense", rule="matmul", flops=96, nbytes=48),
    KernelInfo(name="copy", rule="copy", flops=0, nbytes=16),
    KernelInfo(name="dense", rule="matmul", flops=96, nbytes=48),
)

Edit = Callable[[dict[str, Any]], dict[str, Any] | bytes | None]


def golden(count: int = 2) -> GoldenVectors:
    return GoldenVectors(
        inputs=tuple({"x": np.full((1, 3), v, np.float32)} for v in range(count)),
        outputs=tuple(
            {"y": np.array([[v, -v]], np.float32), "label": np.array(v, np.int64)}
            for v in range(count)
        ),
        tolerance=1e-4,
        distinct=count > 1,
    )


def content(target: str = "raspberrypi4", **changes: Any) -> TargetContent:
    values: dict[str, Any] = {
        "target": load_target(target),
        "inputs": INPUTS,
        "outputs": OUTPUTS,
        "worker": b"\x7fELF for " + target.encode(),
        "weights": b"weights that targets share",
        "arena_bytes": 128,
        "code_bytes": 12,
        "calls": CALLS,
        "golden": golden(),
        "check": CheckResult(max_relative_error=1.5e-7, vectors=2, emulator="qemu-aarch64-static"),
        "source": {"sha256": hashlib.sha256(b"").hexdigest(), "format": "onnx", "file": "m.onnx"},
        "tools": {"edgepack": "0.1.0", "zig": "0.17.1"},
    }
    return TargetContent(**values | changes)


def write(
    path: Path, *targets: str, name: str = "demo", version: str = "1.2.0", **changes: Any
) -> Package:
    models = [content(target, **changes) for target in targets or ("raspberrypi4",)]
    return write_package(path, name=name, version=version, models=models)


def signed(package: Package, *keys: PrivateKey) -> Package:
    for key in keys:
        package = attach_envelope(package, sign(package, key))
    return package


def unpack(path: Path) -> dict[str, bytes]:
    """Entries by name, read by Python's tarfile."""
    with tarfile.open(path) as archive:
        return {member.name: _content(archive, member) for member in archive.getmembers()}


def pack(path: Path, entries: Iterable[tuple[str, bytes]]) -> Path:
    """A canonical tar of any entries, in any order."""
    stream = io.BytesIO()
    tar = TarWriter(stream)
    for name, data in entries:
        tar.add(name, len(data), (data,))
    tar.close()
    path.write_bytes(stream.getvalue())
    return path


def falsify(source: Path, out: Path, **edits: Edit) -> Path:
    """The package with documents changed, and every reference to them made right again.

    Edits, in this order: ``model``, ``layers`` (of the manifest, before the config follows them),
    ``config``, ``manifest`` (of the first target), ``signature`` (its manifest), ``index``, ``root``. An
    edit changes the dict, or returns what is written instead of it.
    """
    entries = unpack(source)
    root = json.loads(entries["index.json"])
    index = _take(entries, root["manifests"][0])
    manifest = _take(entries, index["manifests"][0])
    if "model" in edits:
        metadata = manifest["layers"][2]
        _give(entries, metadata, _edited(_take(entries, metadata), edits["model"]))
    _edited(manifest, edits.get("layers"))
    config = _take(entries, manifest["config"])
    config["rootfs"]["diff_ids"] = [layer["digest"] for layer in manifest["layers"]]
    _give(entries, manifest["config"], _edited(config, edits.get("config")))
    _give(entries, index["manifests"][0], _edited(manifest, edits.get("manifest")))
    if "signature" in edits:
        line = index["manifests"][-1]
        _give(entries, line, _edited(_take(entries, line), edits["signature"]))
    _give(entries, root["manifests"][0], _edited(index, edits.get("index")))
    entries["index.json"] = _edited(root, edits.get("root"))
    return pack(out, sorted(entries.items(), key=_place))


def encode(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _place(entry: tuple[str, bytes]) -> tuple[int, str]:
    order = {"oci-layout": 0, "index.json": 1}
    return order.get(entry[0], 2), entry[0]


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = archive.extractfile(member)
    assert stream is not None
    return stream.read()


def _take(entries: dict[str, bytes], descriptor: dict[str, Any]) -> dict[str, Any]:
    value = json.loads(entries.pop("blobs/sha256/" + descriptor["digest"][7:]))
    assert isinstance(value, dict)
    return value


def _give(entries: dict[str, bytes], descriptor: dict[str, Any], data: bytes) -> None:
    digest = hashlib.sha256(data).hexdigest()
    entries["blobs/sha256/" + digest] = data
    descriptor |= {"digest": "sha256:" + digest, "size": len(data)}


def _edited(value: dict[str, Any], edit: Edit | None) -> bytes:
    changed = edit(value) if edit else None
    if isinstance(changed, bytes):
        return changed
    return encode(value if changed is None else changed)

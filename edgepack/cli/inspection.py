"""What ``inspect`` finds in a file, as its ``--json`` output has it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepack.artefacts import PackagedTarget
from edgepack.cli.text import signatures
from edgepack.errors import ConfigError

if TYPE_CHECKING:
    from edgepack.importers import ImportOptions

_EPK_START = b"oci-layout\0"
"""The first entry's name in the tar."""


def is_package(file: Path) -> bool:
    """Whether the file is, or by its name is meant to be, a package."""
    if file.is_dir():
        return False
    try:
        with file.open("rb") as stream:
            start = stream.read(len(_EPK_START))
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}") from error
    return start == _EPK_START or file.suffix == ".epk"


def inspect_package(file: Path) -> dict[str, Any]:
    """Everything that a package says of itself, and which keys signed it; nothing is trusted."""
    from edgepack import package

    opened = package.read_package(file)
    first = opened.targets[0]
    return {
        "file": str(file),
        "name": opened.name,
        "version": opened.version,
        "digest": opened.digest,
        "inputs": [spec.to_dict() for spec in first.inputs],
        "outputs": [spec.to_dict() for spec in first.outputs],
        "targets": [_packaged_target(target) for target in opened.targets],
        "signatures": signatures(opened),
    }


def _packaged_target(target: PackagedTarget) -> dict[str, Any]:
    blobs = ("manifest", "config", "worker", "weights", "metadata", "golden")
    return {
        "name": target.name,
        "arch": target.arch,
        "digests": {blob: getattr(target, blob) for blob in blobs},
        "sizes": {blob: target.sizes[getattr(target, blob)] for blob in blobs},
        "model": target.model,
    }


def inspect_model(
    file: Path,
    shapes: Mapping[str, tuple[int, ...]],
    format: str | None = None,
    options: ImportOptions | None = None,
) -> dict[str, Any]:
    """What a model takes, gives and costs; after its shapes are fixed where ``shapes`` says how."""
    from edgepack import importers
    from edgepack.cli.model_summary import summarise

    if shapes:
        imported = importers.import_model(file, shapes, format, options)
        found, model = imported.source.format, imported.model
    else:
        source, converted = importers.convert(file, shapes, format, options)
        found, model = source.format, converted.model
    return {"file": str(file), "format": found, "bytes": _bytes(file), **summarise(model)}


def _bytes(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())

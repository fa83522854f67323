"""Importers: one module for each source format, each gives an ONNX model.

A format is a module with the names of Importer, entered by hand in FORMATS. What is common to all,
fixed shapes and simplification, comes after it, in settle.py.
"""

from __future__ import annotations

import difflib
import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgepack import padding
from edgepack.artefacts import ImportedModel, SourceModel
from edgepack.errors import ModelError
from edgepack.importers import (
    keras,
    lightgbm,
    pickled,
    pipeline,
    preprocessing,
    pytorch,
    savedmodel,
    sklearn,
    tflite,
    xgboost,
)
from edgepack.importers import onnx as onnx_importer
from edgepack.importers.labels import tensors_only
from edgepack.importers.onnx_file import read_onnx
from edgepack.importers.protocol import ConvertedModel, Importer, ImportOptions
from edgepack.importers.settle import settle
from edgepack.importers.weights import not_a_number_notes
from edgepack.unsupported import IsSupported

if TYPE_CHECKING:
    import onnx

__all__ = ["FORMATS", "ImportOptions", "Importer", "convert", "detect", "import_model", "read_onnx"]

FORMATS: dict[str, Importer] = {
    "onnx": onnx_importer,
    "pytorch": pytorch,
    "savedmodel": savedmodel,
    "keras": keras,
    "tflite": tflite,
    "sklearn": sklearn,
    "xgboost": xgboost,
    "lightgbm": lightgbm,
    "pickle": pickled,
    "pipeline": pipeline,
}
"""Importers by the name that ``--format`` takes; detection asks them in this order."""


def detect(path: str | os.PathLike[str], format: str | None = None) -> SourceModel:
    """Say what a model file is, by its contents, and take its digest.

    ``format`` overrides detection. Raises ModelError for what is no readable model file.
    """
    path = Path(path)
    if format is not None and format not in FORMATS:
        close = difflib.get_close_matches(format, FORMATS, n=1)
        raise ModelError(
            f"unknown model format {format!r}",
            f"Did you mean {close[0]!r}?" if close else f"Valid formats: {', '.join(FORMATS)}",
        )
    try:
        if not path.is_file() and not path.is_dir():
            os.stat(path)  # raises what is the matter: not there, no permission
            raise ModelError(f"{path} is neither a file nor a folder")
        found = format or _recognise(path)
        digest = _folder_digest(path) if path.is_dir() else _file_digest(path)
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:  # a NUL in the name
        raise ModelError(f"cannot read {str(path)!r}: {error}") from error
    return SourceModel(path=path, format=found, sha256=digest)


def convert(
    path: str | os.PathLike[str],
    shapes: Mapping[str, tuple[int, ...]],
    format: str | None = None,
    options: ImportOptions | None = None,
) -> tuple[SourceModel, ConvertedModel]:
    """A model file, and the ONNX model made of it, with shapes as they were. Raises ModelError."""
    source = detect(path, format)
    return source, FORMATS[source.format].convert(source, shapes, options or ImportOptions())


def import_model(
    path: str | os.PathLike[str],
    shapes: Mapping[str, tuple[int, ...]],
    format: str | None = None,
    options: ImportOptions | None = None,
    is_supported: IsSupported | None = None,
) -> ImportedModel:
    """Read a model file into ONNX, fix its input shapes and simplify it.

    ``shapes`` gives the shape of each input that has a dynamic dimension, as the application hands it
    over. Every operator that is left and not ``is_supported`` is named in one error. Raises ModelError;
    ConfigError for an option that does not fit the model.
    """
    options = options or ImportOptions()
    source = detect(path, format)
    importer = FORMATS[source.format]
    before = preprocessing.given_shapes(options.preprocessing, shapes, importer.LAYOUT)
    converted = importer.convert(source, before, options)
    steps = preprocessing.prepend(converted.model, options.preprocessing, importer.LAYOUT)
    labels = tensors_only(converted.model)
    changed = not converted.is_the_file or bool(steps) or bool(labels)
    reference = _serialised(converted.model) if changed else None
    settled = settle(converted.model, converted.folder, shapes, is_supported, options.bounds)
    if settled.reference is not None:
        reference = _serialised(settled.reference)
    original = converted.original
    if original and settled.padded:
        original = padding.through(settled.padded, original)
    return ImportedModel(
        source=_with_parts(source, converted.parts),
        model=settled.model,
        inputs=settled.inputs,
        outputs=settled.outputs,
        reference=reference,
        original=preprocessing.through(steps, original) if original and steps else original,
        framework=converted.framework,
        notes=(*converted.notes, *labels, *settled.notes, *not_a_number_notes(settled.model)),
        padded=settled.padded,
    )


def _recognise(path: Path) -> str:
    for name, importer in FORMATS.items():
        if importer.recognise(path):
            return name
    for name, importer in FORMATS.items():
        if path.is_file() and path.suffix.lower() in importer.SUFFIXES:
            return name
    raise ModelError(
        f"{path} is not a model file that edgepack knows",
        f"formats that it reads: {', '.join(FORMATS)}",
    )


def _with_parts(source: SourceModel, parts: Sequence[SourceModel]) -> SourceModel:
    """The source with a digest of all the files that it is made of, as of a folder."""
    if not parts:
        return source
    return replace(
        source, sha256=_listing_digest((p.sha256, p.path.name) for p in (source, *parts))
    )


def _serialised(model: onnx.ModelProto) -> bytes:
    try:
        content: bytes = model.SerializeToString()
    except ValueError as error:  # protobuf's limit
        raise ModelError(
            "the model takes over 2 GiB as ONNX",
            "export it to ONNX yourself, with external data, and compile that",
        ) from error
    return content


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _folder_digest(path: Path) -> str:
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return _listing_digest((_file_digest(f), f.relative_to(path).as_posix()) for f in files)


def _listing_digest(files: Iterable[tuple[str, str]]) -> str:
    """Of digests and names, as sha256sum lists them."""
    lines = "".join(f"{digest}  {name}\n" for digest, name in files)
    return hashlib.sha256(lines.encode()).hexdigest()

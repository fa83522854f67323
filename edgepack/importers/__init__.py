"""Importers: one module for each source format, each gives a checked ONNX model with fixed shapes.

A format is a module with the names of Importer, entered by hand in FORMATS.
"""

from __future__ import annotations

import difflib
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from edgepack.artefacts import ImportedModel, SourceModel
from edgepack.errors import ModelError
from edgepack.importers import onnx
from edgepack.importers.onnx_file import read_onnx
from edgepack.importers.protocol import Importer

__all__ = ["FORMATS", "Importer", "detect", "import_model", "read_onnx"]

FORMATS: dict[str, Importer] = {"onnx": onnx}
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
        if path.is_dir():
            raise ModelError(f"{path} is a folder, not a model file")
        if not path.is_file():
            os.stat(path)  # raises what is the matter: not there, no permission
            raise ModelError(f"{path} is not a regular file")
        found = format or _recognise(path)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:  # a NUL in the name
        raise ModelError(f"cannot read {str(path)!r}: {error}") from error
    return SourceModel(path=path, format=found, sha256=digest)


def import_model(
    path: str | os.PathLike[str],
    shapes: Mapping[str, tuple[int, ...]],
    format: str | None = None,
) -> ImportedModel:
    """Read a model file into ONNX, fix its input shapes and simplify it.

    ``shapes`` gives the shape of each input that has a dynamic dimension. Raises ModelError.
    """
    source = detect(path, format)
    return FORMATS[source.format].import_model(source, shapes)


def _recognise(path: Path) -> str:
    for name, importer in FORMATS.items():
        if importer.recognise(path):
            return name
    raise ModelError(
        f"{path} is not a model file that edgepack knows",
        f"formats that it reads: {', '.join(FORMATS)}",
    )

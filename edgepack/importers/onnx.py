"""Importer of ONNX files, with weights inside or beside them, of any opset up to the newest known."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgepack.artefacts import SourceModel
from edgepack.importers.old_opsets import renewed
from edgepack.importers.onnx_file import looks_like_onnx, read_onnx
from edgepack.importers.protocol import ConvertedModel, ImportOptions

LAYOUT = ""
SUFFIXES: tuple[str, ...] = (".onnx",)


def recognise(path: Path) -> bool:
    """Whether the file starts as an ONNX model."""
    return path.is_file() and looks_like_onnx(path)


def convert(
    source: SourceModel, shapes: Mapping[str, tuple[int, ...]], options: ImportOptions
) -> ConvertedModel:
    """Read and check the file; there is nothing to convert but operators of very old opsets."""
    model = read_onnx(source.path)
    current = renewed(model)
    return ConvertedModel(model=current, folder=source.path.parent, is_the_file=current is model)

"""Importer of PyTorch models: exported programs (.pt2) and TorchScript (.pt). Pickles are refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgepack.artefacts import SourceModel
from edgepack.errors import ModelError
from edgepack.importers.extras import quietly, require
from edgepack.importers.pickles import looks_like_pickle, refusal
from edgepack.importers.protocol import ConvertedModel, ImportOptions
from edgepack.importers.pytorch_archive import TORCHSCRIPT, check_whole, form
from edgepack.importers.pytorch_onnx import EXPORT_INSTEAD
from edgepack.importers.pytorch_program import convert_program
from edgepack.importers.pytorch_script import convert_script

LAYOUT = "nchw"

SUFFIXES: tuple[str, ...] = (".pt2", ".pt", ".pth")


def recognise(path: Path) -> bool:
    """Whether the file is a zip as PyTorch writes them."""
    return path.is_file() and bool(form(path))


def convert(
    source: SourceModel, shapes: Mapping[str, tuple[int, ...]], options: ImportOptions
) -> ConvertedModel:
    """Load and convert the model. Raises ModelError; ConfigError without PyTorch or onnxscript."""
    found = form(source.path)
    if not found:
        if looks_like_pickle(source.path):
            raise refusal(source.path)
        raise ModelError(
            f"{source.path} is not a whole PyTorch model: it is cut short or something else",
            f"Export it with {EXPORT_INSTEAD}",
        )
    check_whole(source.path)
    for module in ("torch", "onnxscript"):
        require(module, "pytorch", "a PyTorch model")
    with quietly():
        if found == TORCHSCRIPT:
            return convert_script(source.path, shapes)
        return convert_program(source.path, found, shapes)

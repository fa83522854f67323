"""What a module must have to be an importer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from edgepack.artefacts import ImportedModel, SourceModel


class Importer(Protocol):
    """One source format."""

    def recognise(self, path: Path) -> bool:
        """Whether the file is meant to be of this format; it may still be damaged."""

    def import_model(
        self, source: SourceModel, shapes: Mapping[str, tuple[int, ...]]
    ) -> ImportedModel:
        """Give a checked, simplified ONNX model with fixed shapes. Raises ModelError."""

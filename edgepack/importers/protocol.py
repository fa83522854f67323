"""What a module must have to be an importer, and what passes between one and the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from edgepack.artefacts import Infer, SourceModel
from edgepack.importers.preprocessing import Preprocessing

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """What a user may say about a model beyond the shapes of its inputs."""

    signature: str = ""
    """Which signature of a TensorFlow SavedModel; empty for the only one, or ``serving_default``."""
    trusted_types: tuple[str, ...] = ()
    """Types that a .skops file may bring besides those that are known to be harmless."""
    bounds: Mapping[str, int] = field(default_factory=dict)
    """Upper bound of a data-dependent output, by the name of its node."""
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    """What is put in front of the model."""


@dataclass(frozen=True, kw_only=True)
class ConvertedModel:
    """A source model as ONNX, shapes not yet fixed."""

    model: onnx.ModelProto
    folder: Path | None = None
    """Where the weights are that the model names as external data."""
    is_the_file: bool = False
    """Whether the model is what the file holds, so that others can read it there."""
    original: Infer | None = None
    """Runs the model in the framework that it comes from: inputs and outputs by their ONNX names.

    Inputs have the shapes that the user fixed. None where ONNX is the original.
    """
    framework: str = "ONNX Runtime"
    """What ``original`` runs in, for messages: ``PyTorch``, ``TensorFlow``, ``XGBoost``, ..."""
    parts: tuple[SourceModel, ...] = ()
    """Other model files that it was made of."""
    notes: tuple[str, ...] = ()
    """What the user should know: an output that was dropped, a label that became a number."""


class Importer(Protocol):
    """One source format."""

    LAYOUT: str
    """Of images in its models: ``nchw``, ``nhwc``, or empty where they may have either."""

    SUFFIXES: tuple[str, ...]
    """Names of files that nobody recognises, but which this importer can tell what is wrong with."""

    def recognise(self, path: Path) -> bool:
        """Whether the file or folder is meant to be of this format, by its content alone.

        It may still be damaged. Costs little: nothing heavy is imported, no whole file is read.
        """

    def convert(
        self, source: SourceModel, shapes: Mapping[str, tuple[int, ...]], options: ImportOptions
    ) -> ConvertedModel:
        """Convert to ONNX. Raises ModelError; ConfigError where the format's extra is missing.

        ``shapes`` are those that the user gave, in the model's own layout: some converters need them
        before they start.
        """

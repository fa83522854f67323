"""Importer of pipelines: a TOML file that says which models there are and what feeds what.

    [models.detector]
    file = "detector.onnx"

    [models.crop]
    file = "crop.onnx"
    inputs = { boxes = "detector.boxes", image = "image" }

    [models.reader]
    file = "reader.pt2"
    inputs = { x = "crop.patches" }

    [outputs]
    text = "reader.text"

The models become one graph, so that a device serves them as one: one worker, one arena, and what lies
between two models is scheduled as what lies between two layers. No code of the user's runs between
them; what has to (cutting out, resizing) is a model, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgepack.artefacts import SourceModel
from edgepack.importers.pipeline.chain import chained
from edgepack.importers.pipeline.compose import compose
from edgepack.importers.pipeline.members import convert_members
from edgepack.importers.pipeline.reading import looks_like_pipeline, read_declaration
from edgepack.importers.protocol import ConvertedModel, ImportOptions

LAYOUT = ""
SUFFIXES: tuple[str, ...] = (".toml",)


def recognise(path: Path) -> bool:
    """Whether the file is TOML with a table of models."""
    return path.is_file() and looks_like_pipeline(path)


def convert(
    source: SourceModel, shapes: Mapping[str, tuple[int, ...]], options: ImportOptions
) -> ConvertedModel:
    """Convert every model and join them. Raises ModelError, ConfigError as their importers do."""
    declaration = read_declaration(source.path)
    members = convert_members(source.path, declaration, shapes, options)
    wiring = declaration.wired(
        {name: member.inputs for name, member in members.items()},
        {name: member.outputs for name, member in members.items()},
    )
    frameworks = {
        member.converted.framework for member in members.values() if member.converted.original
    }
    return ConvertedModel(
        model=compose(members, wiring),
        original=chained(members, wiring) if frameworks else None,
        framework=" and ".join(sorted(frameworks)) or "ONNX Runtime",
        parts=tuple(member.source for member in members.values()),
        notes=tuple(
            f"{name}: {note}" for name, member in members.items() for note in member.converted.notes
        ),
    )

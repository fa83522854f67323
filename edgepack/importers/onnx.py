"""Importer of ONNX files, with weights inside or beside them, opset 7 to the newest known."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edgepack.artefacts import ImportedModel, SourceModel
from edgepack.importers.input_shapes import fix_input_shapes
from edgepack.importers.onnx_file import looks_like_onnx, read_onnx
from edgepack.importers.passes import EVERY_ROUND, WHEN_SETTLED
from edgepack.importers.simplify import infer_shapes, normalise, simplify
from edgepack.importers.static_shapes import check_static, input_specs, output_specs
from edgepack.importers.weights import Weights

if TYPE_CHECKING:
    import onnx

_MAX_ROUNDS = 24
"""Every round removes at least one level of nested branches; real models need two to four."""


def recognise(path: Path) -> bool:
    """Whether the file starts as an ONNX model, or at least is called one."""
    return path.suffix.lower() == ".onnx" or looks_like_onnx(path)


def import_model(source: SourceModel, shapes: Mapping[str, tuple[int, ...]]) -> ImportedModel:
    """Read, check, fix the shapes, simplify, and rewrite what the compiler has no operator for."""
    model = read_onnx(source.path)
    fix_input_shapes(model, shapes)
    weights = Weights.detach(model, source.path.parent)
    model = _settle(infer_shapes(normalise(model)))
    check_static(model)
    inputs = input_specs(model, without=weights.names)
    outputs = output_specs(model)
    weights.attach(model)
    return ImportedModel(source=source, model=model, inputs=inputs, outputs=outputs)


def _settle(model: onnx.ModelProto) -> onnx.ModelProto:
    """Simplify and rewrite in turn until no pass finds anything more."""
    for _ in range(_MAX_ROUNDS):
        model = infer_shapes(simplify(model))
        # A list, not a generator: every pass has its turn.
        if not any([apply(model) for apply in EVERY_ROUND]) and not any(
            [apply(model) for apply in WHEN_SETTLED]
        ):
            break
    return infer_shapes(model, strict=True)

"""From ONNX as an exporter gives it to ONNX as the compiler takes it.

Shapes are fixed, constants folded, and what the compiler has no operator for is rewritten.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgepack.artefacts import TensorSpec
from edgepack.importers.input_shapes import fix_input_shapes
from edgepack.importers.passes import EVERY_ROUND, WHEN_SETTLED
from edgepack.importers.simplify import infer_shapes, normalise, simplify
from edgepack.importers.static_shapes import check_static, input_specs, output_specs
from edgepack.importers.weights import Weights

if TYPE_CHECKING:
    import onnx

_MAX_ROUNDS = 24
"""Every round removes at least one level of nested branches; real models need two to four."""


@dataclass(frozen=True, kw_only=True)
class SettledModel:
    """An ONNX model with fixed shapes, simplified; tensor order is the graph's."""

    model: onnx.ModelProto
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def settle(
    model: onnx.ModelProto, folder: Path | None, shapes: Mapping[str, tuple[int, ...]]
) -> SettledModel:
    """Fix the shapes, simplify, and rewrite; ``model`` is changed. Raises ModelError."""
    fix_input_shapes(model, shapes)
    weights = Weights.detach(model, folder or Path())
    model = _rewrite(infer_shapes(normalise(model)))
    check_static(model)
    inputs = input_specs(model, without=weights.names)
    outputs = output_specs(model)
    weights.attach(model)
    return SettledModel(model=model, inputs=inputs, outputs=outputs)


def _rewrite(model: onnx.ModelProto) -> onnx.ModelProto:
    """Simplify and rewrite in turn until no pass finds anything more."""
    for _ in range(_MAX_ROUNDS):
        model = infer_shapes(simplify(model))
        # A list, not a generator: every pass has its turn.
        if not any([apply(model) for apply in EVERY_ROUND]) and not any(
            [apply(model) for apply in WHEN_SETTLED]
        ):
            break
    return infer_shapes(model, strict=True)

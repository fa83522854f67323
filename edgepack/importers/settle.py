"""From ONNX as an exporter gives it to ONNX as the compiler takes it.

Shapes are fixed, constants folded, and what the compiler has no operator for is rewritten.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from edgepack.artefacts import PaddedAxis, TensorSpec
from edgepack.errors import ModelError
from edgepack.importers.bounded import FOLLOWED, Bounded, bound_shapes
from edgepack.importers.bounds import TAKERS, name_nodes
from edgepack.importers.control_flow import CONTROL_FLOW, refuse_control_flow
from edgepack.importers.input_shapes import fix_input_shapes
from edgepack.importers.operand_types import check_operand_types
from edgepack.importers.passes import EVERY_ROUND, WHEN_SETTLED
from edgepack.importers.passes.carried_nodes import exchange_types
from edgepack.importers.passes.carried_types import carry_tensor
from edgepack.importers.passes.loops import bound_loops
from edgepack.importers.simplify import infer_shapes, normalise, simplify
from edgepack.importers.static_shapes import (
    check_selections,
    check_static,
    input_specs,
    output_specs,
)
from edgepack.importers.unranked import without_unranked
from edgepack.importers.weights import Weights
from edgepack.unsupported import IsSupported, refuse_unsupported

if TYPE_CHECKING:
    import onnx

_NOT_SETTLED = {*CONTROL_FLOW, *FOLLOWED, *TAKERS}
"""What bounds may yet do away with."""
_MAX_ROUNDS = 24
"""Every round removes at least one level of nested branches; real models need two to four."""


@dataclass(frozen=True, kw_only=True)
class SettledModel:
    """An ONNX model with fixed shapes, simplified; tensor order is the graph's."""

    model: onnx.ModelProto
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    notes: tuple[str, ...] = ()
    """What the user should know."""
    reference: onnx.ModelProto | None = None
    """What says what is right, where ONNX Runtime cannot take the model as it was."""
    padded: Mapping[str, tuple[PaddedAxis, ...]] = field(default_factory=dict)
    """Outputs whose shape depends on data, by name."""


def settle(
    model: onnx.ModelProto,
    folder: Path | None,
    shapes: Mapping[str, tuple[int, ...]],
    is_supported: IsSupported | None = None,
    bounds: Mapping[str, int] | None = None,
) -> SettledModel:
    """Fix the shapes, simplify, and rewrite; ``model`` is changed. Raises ModelError.

    What is left at the end must be ``is_supported``. ``bounds`` limit shapes that depend on data.
    """
    fix_input_shapes(model, shapes)
    name_nodes(model)
    weights = Weights.detach(model, folder or Path())
    exchanged = exchange_types(model, without=weights.names)
    if exchanged.reference is not None and weights.names:
        raise ModelError(
            "the model is too large for ONNX Runtime to say what is right: it has no element types"
            " like bfloat16, and over 1 GiB of weights in wider ones",
            "convert it to float32 or float16 before, or compile it in parts",
        )
    model = infer_shapes(normalise(exchanged.model))
    check_operand_types(model)
    model = _rewrite(model)
    if is_supported is not None:
        # Before bounds: what such an operator gives has no shape, but that is not what is wrong.
        refuse_unsupported(
            model, lambda domain, name: is_supported(domain, name) or name in _NOT_SETTLED
        )
    model, bounded = _bounded(model, bounds or {})
    if is_supported is not None:
        refuse_unsupported(model, is_supported)
    check_static(model)
    inputs = input_specs(model, without=weights.names)
    outputs = output_specs(model)
    weights.attach(model)
    for tensor in model.graph.initializer:
        carry_tensor(tensor)
    return SettledModel(
        model=model,
        inputs=inputs,
        outputs=outputs,
        notes=(*exchanged.notes, *bounded.notes),
        reference=exchanged.reference,
        padded=bounded.padded,
    )


def _rewrite(model: onnx.ModelProto) -> onnx.ModelProto:
    """Simplify and rewrite in turn until no pass finds anything more."""
    for _ in range(_MAX_ROUNDS):
        model = infer_shapes(without_unranked(model, simplify))
        # A list, not a generator: every pass has its turn.
        if not any([apply(model) for apply in EVERY_ROUND]) and not any(
            [apply(model) for apply in WHEN_SETTLED]
        ):
            break
    check_selections(model)
    return infer_shapes(model, strict=True)


def _bounded(model: onnx.ModelProto, bounds: Mapping[str, int]) -> tuple[onnx.ModelProto, Bounded]:
    """Give what is as long as data say its bound: loops first, as rows come out of them."""
    taken: set[str] = set()
    while found := bound_loops(model, bounds):
        taken |= found
        try:
            model = _rewrite(infer_shapes(model))
        except ModelError as error:
            raise ModelError(
                f"loops with a bound ({', '.join(sorted(found))}) cannot run that often:"
                f" {error.message}",
                "Export the model with a fixed number of iterations",
            ) from error
    refuse_control_flow(model)
    bounded = bound_shapes(model, {n: b for n, b in bounds.items() if n not in taken})
    if bounded.changed:
        model = _rewrite(infer_shapes(model))
    return model, bounded

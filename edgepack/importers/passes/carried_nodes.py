"""Exchanges the types of a model for those that carry them: its declarations, constants and nodes.

Numbers enter a floating-point type where a Cast, a CastLike or a QuantizeLinear says so, and at the
model's inputs: they are rounded there. What other operators make of bfloat16 is left as float32
computes it, closer to the true result than a rounding after every step. Integers of 4 and 2 bits are
cut to their range where numbers enter them.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from edgepack.errors import ModelError
from edgepack.importers.graphs import all_graphs, all_tensors
from edgepack.importers.onnx_file import one_line
from edgepack.importers.passes import quantised, rounding
from edgepack.importers.passes.carried_types import (
    CARRIED_TYPES,
    CarriedType,
    carried_type,
    carrier_type,
    carry_declarations,
    carry_tensor,
    mentioned_types,
    type_attributes,
)
from edgepack.importers.passes.quantised import Place
from edgepack.importers.passes.subgraph_editor import Rewrite, SubgraphEditor, edit_all

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True, kw_only=True)
class Exchanged:
    """A model without types that have to be carried."""

    model: onnx.ModelProto
    notes: tuple[str, ...] = ()
    """What the user must know."""
    reference: onnx.ModelProto | None = None
    """What says what is right, where ONNX Runtime cannot take the model as it was."""


def exchange_types(model: onnx.ModelProto, *, without: Container[str]) -> Exchanged:
    """Carry every type of CARRIED_TYPES in the model; ``model`` may be changed.

    Inputs named in ``without`` are weights that were set aside: the caller converts them. Raises
    ModelError for an operator that works on the bits of such a type.
    """
    names = mentioned_types(model)
    if not names:
        return Exchanged(model=model)
    model = _with_types(model)
    inputs = _carried(value for value in model.graph.input if value.name not in without)
    outputs = _carried(model.graph.output)
    rounding.declare(model)
    _exchange_nodes(model)
    for graph in all_graphs(model.graph):
        carry_declarations(graph)
    for tensor in all_tensors(model):
        carry_tensor(tensor)
    _limit_inputs(model, inputs)
    known = all(CARRIED_TYPES[name].in_onnxruntime for name in names)
    return Exchanged(
        model=model,
        notes=tuple(_notes(inputs, outputs, names)),
        reference=None if known and not inputs and not outputs else rounding.for_onnxruntime(model),
    )


def _with_types(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its functions inlined and all types inferred."""
    import onnx.inliner

    try:
        if model.functions:
            model = onnx.inliner.inline_local_functions(model)
        return onnx.shape_inference.infer_shapes(model, data_prop=True)
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError) as error:
        raise ModelError(
            f"the types of the model do not fit together: {one_line(error)}"
        ) from error


def _carried(values: Iterable[onnx.ValueInfoProto]) -> dict[str, CarriedType]:
    """Those values whose type has to be carried, by name."""
    types = {value.name: carried_type(value.type.tensor_type.elem_type) for value in values}
    return {name: carried for name, carried in types.items() if carried is not None}


def _notes(
    inputs: Mapping[str, CarriedType], outputs: Mapping[str, CarriedType], names: Container[str]
) -> Iterator[str]:
    for name, carried in inputs.items():
        values = f", from {carried.lowest} to {carried.highest}" if carried.is_integer else ""
        yield f"input {name!r} is {carried.name}: pass its values as {carried.carrier}{values}"
    for name, carried in outputs.items():
        yield f"output {name!r} is {carried.name}: its values are given as {carried.carrier}"
    if "bfloat16" in names:
        yield "the model computes in bfloat16: edgepack computes in float32 instead"


def _exchange_nodes(model: onnx.ModelProto) -> None:
    everywhere: dict[str, int] = {}
    for graph in all_graphs(model.graph):
        everywhere |= _types_in(graph)

    def begin(editor: SubgraphEditor) -> Rewrite:
        place = Place(editor=editor, types=everywhere | _types_in(editor.graph))
        return partial(_exchange, place)

    edit_all(model, begin)


def _types_in(graph: onnx.GraphProto) -> dict[str, int]:
    """The element types of a graph's values by name."""
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    for value in (*graph.input, *graph.output, *graph.value_info):
        types[value.name] = value.type.tensor_type.elem_type
    return types


def _exchange(place: Place, node: onnx.NodeProto) -> bool:
    handler = _HANDLERS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    if handler is not None and handler(place, node):
        return True
    for attribute in type_attributes(node):
        attribute.i = carrier_type(attribute.i)
    return False


_HANDLERS: dict[str, Callable[[Place, onnx.NodeProto], bool]] = {
    "BitCast": quantised.refuse,
    "Cast": quantised.cast,
    "CastLike": quantised.cast,
    "DequantizeLinear": quantised.dequantise,
    "QLinearMatMul": quantised.refuse,
    "QuantizeLinear": quantised.quantise,
}
"""Operators to which the type itself matters; all others work on the carrying type as they are."""


def _limit_inputs(model: onnx.ModelProto, carried: Mapping[str, CarriedType]) -> None:
    """Let the model read inputs as their types hold them, whatever the application passes."""
    for name, entry in carried.items():
        editor = SubgraphEditor(model, model.graph)
        limited = editor.fresh(f"{name}/{entry.name}")
        for graph in all_graphs(model.graph):
            for node in graph.node:
                node.input[:] = [limited if used == name else used for used in node.input]
            for value in graph.output if graph is not model.graph else ():
                value.name = limited if value.name == name else value.name
        editor.put_first(name, partial(quantised.limit, editor, name, entry, limited))

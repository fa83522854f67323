"""Holds that every operator's operands have types that ONNX's schema of it allows, and allows together.

Of the floating point and integer types, any width will do: some schemas name float32 alone (Celu), where
what the operator computes is as clear in the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from edgepack.errors import ModelError
from edgepack.importers.graphs import node_label
from edgepack.importers.input_shapes import dtype_name
from edgepack.importers.static_shapes import value_types

if TYPE_CHECKING:
    import onnx

_HINT = "Cast it in the model, or export the model again with all of its weights of one type"


def check_operand_types(model: onnx.ModelProto) -> None:
    """Raise ModelError naming the first node of the main graph, and its operand, of a wrong type.

    Operands whose type is not known yet, and operators of other domains, are not judged.
    """
    import onnx

    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    types = {
        name: value.type.tensor_type.elem_type
        for name, value in value_types(model).items()
        if value.type.WhichOneof("value") == "tensor_type"
    }
    types.update((tensor.name, tensor.data_type) for tensor in model.graph.initializer)
    for node in model.graph.node:
        if node.domain in ("", "ai.onnx") and onnx.defs.has(node.op_type, max(versions), ""):
            _check(node, onnx.defs.get_schema(node.op_type, max(versions)), types)


def _check(node: onnx.NodeProto, schema: onnx.defs.OpSchema, types: Mapping[str, int]) -> None:
    import onnx

    allowed = {c.type_param_str: c.allowed_type_strs for c in schema.type_constraints}
    first: dict[str, str] = {}
    for name, parameter in _operands(node, schema):
        if not types.get(name):
            continue
        asked = parameter.type_str
        # ONNX's name of a type is its protocol buffers' name; a constraint's is "tensor(float)".
        own = onnx.TensorProto.DataType.Name(types[name]).lower()
        if _kind(f"tensor({own})") not in map(_kind, allowed.get(asked, [asked])):
            raise ModelError(
                f"{node_label(node)} takes no {dtype_name(types[name])} for its operand {name!r}",
                _HINT,
            )
        before = first.setdefault(asked, name)
        if parameter.is_homogeneous and types[before] != types[name]:
            raise ModelError(
                f"{node_label(node)} takes operands of one type: {before!r} is"
                f" {dtype_name(types[before])} and {name!r} is {dtype_name(types[name])}",
                _HINT,
            )


def _kind(asked: str) -> str:
    """What a tensor type is of, whatever its width: ``float`` for ``tensor(double)``."""
    element = asked.removeprefix("tensor(")
    kinds = {"float": "float", "double": "float", "bfloat": "float", "int": "int", "uint": "int"}
    return next((kind for start, kind in kinds.items() if element.startswith(start)), asked)


def _operands(
    node: onnx.NodeProto, schema: onnx.defs.OpSchema
) -> Iterator[tuple[str, onnx.defs.OpSchema.FormalParameter]]:
    """Each operand with what the schema says of it; the schema's last may stand for many."""
    for number, name in enumerate(node.input):
        if schema.inputs:
            yield name, schema.inputs[min(number, len(schema.inputs) - 1)]

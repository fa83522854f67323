"""How numbers enter the types that are carried, and leave them: Cast, QuantizeLinear, DequantizeLinear.

As ONNX defines these operators; values are those of the carrying types, int8, uint8 and float32.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgepack.errors import ModelError
from edgepack.importers.graphs import node_label
from edgepack.importers.passes import rounding
from edgepack.importers.passes.carried_types import CarriedType, carried_type, carrier_type

if TYPE_CHECKING:
    import numpy as np
    import onnx

    from edgepack.importers.passes.subgraph_editor import SubgraphEditor


@dataclass(frozen=True, kw_only=True)
class Place:
    """A graph that is being edited, and the ONNX element types that its values had before."""

    editor: SubgraphEditor
    types: Mapping[str, int]


def cast(place: Place, node: onnx.NodeProto) -> bool:
    """Cast, and CastLike to a known type; False where the node does right as it stands."""
    import onnx

    given, attributes = place.types.get(node.input[0], 0), _attributes(node)
    like = node.op_type == "CastLike"
    to = place.types.get(node.input[1], 0) if like else int(attributes.get("to", 0))
    target = carried_type(to)
    if target is None:
        if like and to != onnx.TensorProto.UNDEFINED:
            place.editor.emit("Cast", [node.input[0]], node.output[0], to=to)
        return like and to != onnx.TensorProto.UNDEFINED
    if given == to:
        place.editor.emit("Identity", [node.input[0]], node.output[0])
    elif target.is_integer:
        _wrap(place.editor, node.input[0], target, node.output[0])
    else:
        value = _as(place, node.input[0], given, onnx.TensorProto.FLOAT)
        mode = attributes.get("round_mode", b"up").decode()
        saturate = int(attributes.get("saturate", 1))
        _round(place.editor, value, target, node.output[0], saturate, mode)
    return True


def limit(editor: SubgraphEditor, value: str, target: CarriedType, output: str) -> None:
    """``value``, of the carrying type, as the nearest that the type has."""
    if target.is_integer:
        _clip(editor, value, target, output, target.carrier)
    else:
        _round(editor, value, target, output)


def quantise(place: Place, node: onnx.NodeProto) -> bool:
    """QuantizeLinear to a carried type; False for any other."""
    attributes = _attributes(node)
    zero_point = node.input[2] if len(node.input) > 2 else ""
    to = place.types.get(zero_point, 0) or int(attributes.get("output_dtype", 0))
    target = carried_type(to)
    if target is None:
        return False
    if target.is_integer and not attributes.get("block_size"):
        _quantise_in_carrier(place.editor, node, target)
        return True
    editor = place.editor
    value = _divided(place, node, int(attributes.get("precision", 0)))
    if target.is_integer:
        value = editor.emit("Round", [value])
    if zero_point and not target.name.startswith("float8"):  # float8's is always zero
        value = editor.emit("Add", [value, _spread(place, node, zero_point)])
    if target.is_integer:
        value = _clip(editor, value, target, "", "float32")
        editor.emit("Cast", [value], node.output[0], to=carrier_type(to))
    else:
        saturate = int(attributes.get("saturate", 1))
        _round(editor, value, target, node.output[0], saturate)
    return True


def dequantise(place: Place, node: onnx.NodeProto) -> bool:
    """DequantizeLinear of a carried type; False where the node does right on the carrying type."""
    import onnx

    attributes = _attributes(node)
    given = carried_type(place.types.get(node.input[0], 0))
    if given is None or (given.is_integer and not attributes.get("block_size")):
        return False
    editor, scale = place.editor, node.input[1]
    to = int(attributes.get("output_dtype", 0)) or place.types.get(scale, 0)
    to = carrier_type(to) or onnx.TensorProto.FLOAT
    value = _float(place, node.input[0])
    if given.is_integer and len(node.input) > 2 and node.input[2]:
        value = editor.emit("Sub", [value, _spread(place, node, node.input[2])])
    factor = _spread(place, node, scale)
    if to == onnx.TensorProto.FLOAT:
        editor.emit("Mul", [value, factor], node.output[0])
    else:
        editor.emit("Cast", [editor.emit("Mul", [value, factor])], node.output[0], to=to)
    return True


def refuse(place: Place, node: onnx.NodeProto) -> bool:
    """BitCast, QLinearMatMul: raise ModelError where the tensors that they work on are carried."""
    tensors = (*node.input[0:4:3], *node.output)  # scales may be carried
    named = [place.types.get(name, 0) for name in tensors]
    for carried in filter(None, map(carried_type, named)):
        raise ModelError(
            f"{node_label(node)} works on {carried.name}, which edgepack knows by its values only",
            "export the model without it",
        )
    return False


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    import onnx

    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


def _as(place: Place, value: str, given: int, wanted: int) -> str:
    """``value``, whose type was ``given``, as another type."""
    if carrier_type(given) == wanted:
        return value
    return place.editor.emit("Cast", [value], to=wanted)


def _float(place: Place, value: str) -> str:
    import onnx

    return _as(place, value, place.types.get(value, 0), onnx.TensorProto.FLOAT)


def _round(
    editor: SubgraphEditor,
    value: str,
    target: CarriedType,
    output: str,
    saturate: int = 1,
    round_mode: str = "up",
) -> None:
    attributes = {"to": target.name, "saturate": saturate, "round_mode": round_mode}
    editor.emit(rounding.OPERATOR, [value], output, domain=rounding.DOMAIN, **attributes)


def _wrap(editor: SubgraphEditor, value: str, target: CarriedType, output: str) -> None:
    """The low bits of an integer, of a negative one's too, with the highest as the sign."""
    import numpy as np
    import onnx

    def number(n: int) -> str:
        return editor.constant("number", np.array(n, np.int32))

    value = editor.emit("Cast", [value], to=onnx.TensorProto.INT32)
    value = editor.emit("BitwiseAnd", [value, number(2**target.bits - 1)])
    if target.lowest:
        value = editor.emit("BitwiseXor", [value, number(-target.lowest)])
        value = editor.emit("Add", [value, number(target.lowest)])
    carrier = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(target.carrier))
    editor.emit("Cast", [value], output, to=carrier)


def _clip(editor: SubgraphEditor, value: str, target: CarriedType, output: str, dtype: str) -> str:
    import numpy as np

    ends = [
        editor.constant(word, np.array(end, dtype))
        for word, end in (("lowest", target.lowest), ("highest", target.highest))
    ]
    return editor.emit("Clip", [value, *ends], output)


def _quantise_in_carrier(editor: SubgraphEditor, node: onnx.NodeProto, target: CarriedType) -> None:
    """Quantise to the carrying type: what lies beyond the narrow one is cut off afterwards."""
    import onnx

    wide = onnx.NodeProto()
    wide.CopyFrom(node)
    wide.output[0] = editor.fresh("quantised")
    for attribute in wide.attribute:
        if attribute.name in ("output_dtype", "precision"):
            attribute.i = carrier_type(attribute.i)
    editor.adopt(wide)
    _clip(editor, wide.output[0], target, node.output[0], target.carrier)


def _divided(place: Place, node: onnx.NodeProto, precision: int) -> str:
    """The input divided by its scale, as float32; the division in the type that ONNX says."""
    import onnx

    value, scale = node.input[:2]
    floats = (onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE)
    work = carrier_type(precision or place.types.get(value, 0))
    work = work if work in floats else onnx.TensorProto.FLOAT
    value = _as(place, value, place.types.get(value, 0), work)
    quotient = place.editor.emit("Div", [value, _spread(place, node, scale, work)])
    return _as(place, quotient, work, onnx.TensorProto.FLOAT)


def _spread(place: Place, node: onnx.NodeProto, name: str, to: int = 0) -> str:
    """Scales or zero points in a shape that broadcasts over the node's input, float32 or ``to``.

    They are one element, or as many as ``axis`` is long, or one for each ``block_size`` along it.
    """
    import numpy as np
    import onnx

    editor, attributes = place.editor, _attributes(node)
    shape, own = editor.shape(node.input[0]), editor.shape(name)
    if shape is None or own is None:
        raise ModelError(
            f"{node_label(node)}: the shape of its input is not known before the model runs",
            "export the model with fixed shapes",
        )
    value = _as(place, name, place.types.get(name, 0), to or onnx.TensorProto.FLOAT)
    axis = int(attributes.get("axis", 1)) % max(len(shape), 1)
    block = int(attributes.get("block_size", 0))
    if math.prod(own) == 1:
        return editor.reshape(value, []) if own else value
    if block:
        positions: np.ndarray = np.arange(shape[axis]) // block
        return editor.emit("Gather", [value, editor.constant("block", positions)], axis=axis)
    return editor.reshape(value, [-1, *([1] * (len(shape) - axis - 1))])

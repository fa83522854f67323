"""``edgepack.RoundTo``: the one operator that carried types need and ONNX does not have.

    y = RoundTo(x), both float32, of one shape
    to          name of a floating-point type of CARRIED_TYPES; y holds numbers of that type only
    saturate    as of ONNX's Cast: what is beyond the type's range becomes its largest number
    round_mode  as of ONNX's Cast, for float8e8m0: up, down, nearest

In ONNX's own operators it is a Cast to the type and one back. That form is for ONNX Runtime alone:
nothing else could see that both Casts must stay.
"""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING, Any

from edgepack.importers.passes.subgraph_editor import SubgraphEditor, edit_all

if TYPE_CHECKING:
    import onnx

DOMAIN = "edgepack"
OPERATOR = "RoundTo"
_DEFAULTS = {"saturate": 1, "round_mode": "up"}


@cache
def register() -> None:
    """Tell ONNX of the operator: its checker and its shape inference then know it."""
    import onnx

    schema = onnx.defs.OpSchema
    attributes = [
        schema.Attribute("to", schema.AttrType.STRING, "the type"),
        *(
            schema.Attribute(name, onnx.helper.make_attribute(name, value))
            for name, value in _DEFAULTS.items()
        ),
    ]
    definition = schema(
        OPERATOR,
        DOMAIN,
        1,
        inputs=[schema.FormalParameter("x", "T")],
        outputs=[schema.FormalParameter("y", "T")],
        type_constraints=[("T", ["tensor(float)"], "")],
        attributes=attributes,
    )
    definition.set_type_and_shape_inference_function(_infer)
    onnx.defs.register_schema(definition)


def _infer(context: Any) -> None:
    given = context.get_input_type(0)
    if given is not None:
        context.set_output_type(0, given)


def declare(model: onnx.ModelProto) -> None:
    """Let the model have nodes of the domain."""
    register()
    if all(entry.domain != DOMAIN for entry in model.opset_import):
        model.opset_import.add(domain=DOMAIN, version=1)


def for_onnxruntime(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of the model in ONNX's own operators."""
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    edit_all(copy, lambda editor: partial(_replace, editor))
    for entry in [entry for entry in copy.opset_import if entry.domain == DOMAIN]:
        copy.opset_import.remove(entry)
    return copy


def _replace(editor: SubgraphEditor, node: onnx.NodeProto) -> bool:
    import onnx

    if (node.domain, node.op_type) != (DOMAIN, OPERATOR):
        return False
    given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    to = given["to"].decode()
    if to == "float4e2m1":  # no Cast of it in ONNX Runtime
        _round_to_float4(editor, node.input[0], node.output[0])
        return True
    attributes: dict[str, Any] = {}
    if to.startswith("float8"):
        attributes["saturate"] = given.get("saturate", 1)
    if to == "float8e8m0":
        attributes["round_mode"] = given.get("round_mode", b"up").decode()
    element_type = onnx.TensorProto.DataType.Value(to.upper())
    narrow = editor.emit("Cast", [node.input[0]], to=element_type, **attributes)
    editor.emit("Cast", [narrow], node.output[0], to=onnx.TensorProto.FLOAT)
    return True


def _round_to_float4(editor: SubgraphEditor, x: str, output: str) -> None:
    """0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives: steps of 0.5 below 2, of 1 below 4, of 2."""
    import numpy as np

    def number(value: float) -> str:
        return editor.constant("number", np.array(value, np.float32))

    def steps(size: float) -> str:
        units = editor.emit("Round", [editor.emit("Div", [clipped, number(size)])])
        return editor.emit("Mul", [units, number(size)])

    size = editor.emit("Abs", [x])
    # A NaN, which the type does not have, becomes zero.
    size = editor.emit("Where", [editor.emit("IsNaN", [x]), number(0), size])
    clipped = editor.emit("Min", [size, number(6)])
    large = editor.emit("Where", [editor.emit("Less", [clipped, number(4)]), steps(1), steps(2)])
    small = editor.emit("Less", [clipped, number(2)])
    rounded = editor.emit("Where", [small, steps(0.5), large])
    is_negative = editor.emit("Less", [x, number(0)])
    negative = editor.emit("Neg", [rounded])
    editor.emit("Where", [is_negative, negative, rounded], output)

"""TVM's own converters, for operators whose conversion there is right.

TVM's importer is a table of classes, one for each operator; the rest of it, which walks the graph, is
not used.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from edgepack.compiler.frontend.node import Node, constant


def knows(operator: str) -> bool:
    """Whether TVM has a converter for an operator of the standard domain."""
    return operator in _table()


def convert(node: Node) -> list[Any]:
    """The node's outputs by TVM's converter."""
    from tvm import relax
    from tvm.relax.frontend.onnx import onnx_frontend

    converter = _table()[node.operator].get_converter(node.opset)
    attributes = _attributes(node)
    inputs = onnx_frontend.onnx_input(node.inputs)
    result = converter(node.builder, inputs, attributes, [{}, {}])
    if not isinstance(result, relax.Tuple):
        result = node.builder.normalize(result)
        if isinstance(result.ty, relax.TupleType):
            result = node.emit(result)
            return [relax.TupleGetItem(result, i) for i in range(len(result.ty.fields))]
        return [_tensor(result)]
    return [_tensor(field) for field in result]


@cache
def _table() -> dict[str, Any]:
    from tvm.relax.frontend.onnx import onnx_frontend

    table: dict[str, Any] = onnx_frontend._get_convert_map()
    return table


def _attributes(node: Node) -> dict[str, Any]:
    """As TVM's converters expect them: bytes for strings, tuples for lists, protobuf tensors."""
    import onnx

    values: dict[str, Any] = {}
    for attribute in node.proto.attribute:
        value = onnx.helper.get_attribute_value(attribute)
        values[attribute.name] = tuple(value) if isinstance(value, list) else value
    values["tvm_custom"] = {"name": node.label, "num_outputs": len(node.outputs)}
    return values


def _tensor(expression: Any) -> Any:
    """A shape, which some converters give, as the int64 tensor that it is in ONNX."""
    from tvm import relax

    if isinstance(expression, relax.ShapeExpr):
        return constant([int(extent) for extent in expression.values], "int64")
    return expression

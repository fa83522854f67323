"""Constant nodes become initializers: one form of constants for every pass and for the compiler."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgepack.importers.passes.editor import GraphEditor

if TYPE_CHECKING:
    import onnx


def hoist_constants(model: onnx.ModelProto) -> bool:
    """Turn every Constant node of the main graph into an initializer of the same name."""
    editor = GraphEditor(model)
    outputs = {value.name for value in model.graph.output}

    def rewrite(node: onnx.NodeProto) -> bool:
        # A graph whose output is a constant keeps the node: an output must come from somewhere.
        if node.op_type != "Constant" or node.domain or node.output[0] in outputs:
            return False
        tensor = constant_tensor(node)
        if tensor is None:
            return False
        tensor.name = node.output[0]
        model.graph.initializer.append(tensor)
        return True

    return editor.replace(rewrite)


def constant_tensor(node: onnx.NodeProto) -> onnx.TensorProto | None:
    """What a Constant node gives, without a name; None for a sparse tensor or text."""
    import numpy as np
    import onnx

    attribute = node.attribute[0]
    if attribute.name == "value":
        tensor = onnx.TensorProto()
        tensor.CopyFrom(attribute.t)
        return tensor
    dtypes = {"value_float": "f4", "value_floats": "f4", "value_int": "i8", "value_ints": "i8"}
    if attribute.name not in dtypes:
        return None
    value = np.array(onnx.helper.get_attribute_value(attribute), dtypes[attribute.name])
    return onnx.numpy_helper.from_array(value)

"""ONNX models of opsets 1 to 6 as opset 7, the oldest that the rest knows.

Until opset 7 broadcasting was an attribute of each operator, with an axis to start from, and Dropout and
BatchNormalization had a switch for inference. onnx.version_converter knows what became of most of it;
operands that start at an axis, which it takes for errors, get their trailing axes here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgepack.errors import ModelError
from edgepack.importers.graphs import all_graphs, all_tensors, node_label
from edgepack.importers.input_shapes import dims_of
from edgepack.importers.onnx_file import OLDEST_OPSET, opset_of, with_opset
from edgepack.importers.static_shapes import value_types

if TYPE_CHECKING:
    import onnx

_LAST_OLD = OLDEST_OPSET - 1
_BROADCASTING = ("Add", "And", "Div", "Equal", "Greater", "Less", "Mul", "Or", "Pow", "Sub", "Xor")


def renewed(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model as opset 7 where it is older, else itself. Raises ModelError."""
    import onnx

    opset = opset_of(model)
    if opset is None or opset >= OLDEST_OPSET:
        return model
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in all_tensors(model)):
        raise ModelError(
            f"the model uses opset {opset} and has weights in other files",
            "Save it in one file: onnx.save(onnx.load(path), path)",
        )
    why = f"the model uses opset {opset}, and cannot be read as opset {OLDEST_OPSET}"
    if opset < _LAST_OLD:
        model = with_opset(model, _LAST_OLD, why, OLDEST_OPSET)
    converted = with_opset(_aligned(model), OLDEST_OPSET, why, OLDEST_OPSET)
    _without_attributes_of_opset_1(converted)
    return converted


def _without_attributes_of_opset_1(model: onnx.ModelProto) -> None:
    """``consumed_inputs`` allowed to overwrite an input; it says nothing about results."""
    for graph in all_graphs(model.graph):
        for node in graph.node:
            kept = [entry for entry in node.attribute if entry.name != "consumed_inputs"]
            if len(kept) < len(node.attribute):
                del node.attribute[:]
                node.attribute.extend(kept)


def _aligned(model: onnx.ModelProto) -> onnx.ModelProto:
    """Second operands that start at an axis of the first, with axes of extent 1 behind their own."""
    import onnx

    aligned = onnx.ModelProto()
    aligned.CopyFrom(model)
    ranks = _ranks(onnx.shape_inference.infer_shapes(model))
    nodes = []
    for node in aligned.graph.node:
        start = _start(node, ranks)
        if start is not None:
            first, second = (_rank(node, name, ranks) for name in node.input)
            axes = [*range(second, first - start)]
            if axes:
                along = f"{node.output[0]}/along"
                nodes.append(
                    onnx.helper.make_node("Unsqueeze", [node.input[1]], [along], axes=axes)
                )
                node.input[1] = along
        nodes.append(node)
    del aligned.graph.node[:]
    aligned.graph.node.extend(nodes)
    return aligned


def _start(node: onnx.NodeProto, ranks: dict[str, int]) -> int | None:
    """Along which axis of the first operand the second starts; None where their last ones agree.

    The axis attribute is dropped. PRelu's slopes, one for each channel, go along axis 1.
    """
    if node.domain not in ("", "ai.onnx"):
        return None
    if node.op_type == "PRelu":
        return 1 if _rank(node, node.input[1], ranks) == 1 else None
    if node.op_type not in _BROADCASTING:
        return None
    named = [entry for entry in node.attribute if entry.name == "axis"]
    for entry in named:
        node.attribute.remove(entry)
    if not named:
        return None
    axis = int(named[0].i)
    return axis if axis >= 0 else axis + _rank(node, node.input[0], ranks)


def _rank(node: onnx.NodeProto, name: str, ranks: dict[str, int]) -> int:
    if name not in ranks:
        raise ModelError(
            f"{node_label(node)} works on a tensor of unknown rank, in an opset below {OLDEST_OPSET}",
            f"Export it with opset {OLDEST_OPSET} or newer",
        )
    return ranks[name]


def _ranks(model: onnx.ModelProto) -> dict[str, int]:
    """The number of axes of every value of the main graph for which it is known."""
    dims = {name: dims_of(value) for name, value in value_types(model).items()}
    known = {name: len(found) for name, found in dims.items() if found is not None}
    return known | {tensor.name: len(tensor.dims) for tensor in model.graph.initializer}

"""Which of ONNX's test cases are asked of edgepack, and which inputs a real model holds as constants."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx

RANDOM = {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform"}
RANDOM |= {"RandomUniformLike"}
TRAINING_DOMAIN = "ai.onnx.preview.training"

OUT_OF_SCOPE = {
    "string": "strings: a model's vocabulary belongs to the application around it",
    "sequence": "sequences, optionals and maps: a package takes and gives tensors",
    "random": "random numbers: the same input must give the same answer on every device",
    "training": "training: packages infer",
}
"""Reasons, by the word that reason_of gives."""

CONSTANT_INPUTS: dict[str, Sequence[int]] = {
    "AffineGrid": [1],
    "BlackmanWindow": [0],
    "CenterCropPad": [1],
    "Clip": [1, 2],
    "Col2Im": [1, 2],
    "ConstantOfShape": [0],
    "CumProd": [1],
    "CumSum": [1],
    "DFT": [1, 2],
    "Dropout": [1, 2],
    "Expand": [1],
    "GRU": [1, 2, 3, 4],
    "HammingWindow": [0],
    "HannWindow": [0],
    "LSTM": [1, 2, 3, 4, 7],
    "Loop": [0, 1],
    "MaxUnpool": [2],
    "MelWeightMatrix": [0, 1, 2, 3, 4],
    "NonMaxSuppression": [2, 3, 4],
    "OneHot": [1],
    "Pad": [1, 2, 3],
    "RNN": [1, 2, 3, 4],
    "Range": [0, 1, 2],
    "ReduceL1": [1],
    "ReduceL2": [1],
    "ReduceLogSum": [1],
    "ReduceLogSumExp": [1],
    "ReduceMax": [1],
    "ReduceMean": [1],
    "ReduceMin": [1],
    "ReduceProd": [1],
    "ReduceSum": [1],
    "ReduceSumSquare": [1],
    "Reshape": [1],
    "Resize": [1, 2, 3],
    "STFT": [1, 3],
    "Slice": [1, 2, 3, 4],
    "Split": [1],
    "Squeeze": [1],
    "Tile": [1],
    "TopK": [1],
    "Trilu": [1],
    "Unsqueeze": [1],
    "Upsample": [1],
}
"""Inputs that exporters write as initializers: shapes, axes, counts, and recurrent weights."""


def reason_of(model: onnx.ModelProto) -> str:
    """Why the case is out of scope: a key of OUT_OF_SCOPE, or empty."""
    nodes = list(_nodes(model.graph))
    if any(node.domain == TRAINING_DOMAIN for node in nodes):
        return "training"
    if any(node.op_type in RANDOM or _drops_at_random(node, model) for node in nodes):
        return "random"
    values = [*model.graph.input, *model.graph.output]
    if any(value.type.WhichOneof("value") != "tensor_type" for value in values):
        return "sequence"
    if any(node.op_type.startswith(("Sequence", "SplitToSequence", "Optional")) for node in nodes):
        return "sequence"
    if any(value.type.tensor_type.elem_type == onnx.TensorProto.STRING for value in values):
        return "string"
    if any(_holds_strings(node) for node in nodes):
        return "string"
    return ""


def constant_inputs(model: onnx.ModelProto) -> set[str]:
    """Graph inputs that a real model would hold as initializers."""
    found: set[str] = set()
    for node in model.graph.node:
        for index in CONSTANT_INPUTS.get(node.op_type, ()):
            if index < len(node.input):
                found.add(node.input[index])
    return found & {value.name for value in model.graph.input}


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _nodes(attribute.g)


def _holds_strings(node: onnx.NodeProto) -> bool:
    """StringNormalizer and the like, or a Cast to or from text."""
    return node.op_type.startswith(("String", "Regex")) or any(
        attribute.name in ("to", "value_strings", "value_string")
        and attribute.i == onnx.TensorProto.STRING
        for attribute in node.attribute
    )


def _drops_at_random(node: onnx.NodeProto, model: onnx.ModelProto) -> bool:
    """Dropout in training mode, with a ratio above zero."""
    return node.op_type == "Dropout" and len(node.input) > 2 and bool(node.input[2])

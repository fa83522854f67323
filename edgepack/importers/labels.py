"""Classifiers that answer with text or dictionaries, turned to tensors of numbers.

A label becomes its index in the list of labels; what ZipMap makes of the probabilities, a list of
dictionaries, becomes the matrix that it is made of. What gives text in another way stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from edgepack.importers.graphs import all_graphs, subgraphs, used_names

if TYPE_CHECKING:
    import onnx

_ML = "ai.onnx.ml"
_SHOWN = 50
"""So many labels are listed in a note."""
_PASSING = {"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Cast"}
"""Operators that leave text what it is."""
_CLASSIFIERS = {
    "LinearClassifier": "classlabels_ints",
    "SVMClassifier": "classlabels_ints",
    "TreeEnsembleClassifier": "classlabels_int64s",
}
"""Where each has its labels if they are numbers."""


def tensors_only(model: onnx.ModelProto) -> tuple[str, ...]:
    """Change the model in place; what to say of it, a line for each output that became another."""
    from onnx import TensorProto

    graph = _Graph(model.graph)
    notes = []
    for output in model.graph.output:
        if output.type.WhichOneof("value") in ("sequence_type", "map_type"):
            notes.append(_drop_zipmap(graph, output))
        elif output.type.tensor_type.elem_type == TensorProto.STRING:
            notes.append(_number_labels(graph, output))
    for node in model.graph.node:
        if node.op_type in _CLASSIFIERS and node.output[0] not in graph.needed:
            _number(graph, node)  # a part of the model, asked for its scores alone
    return tuple(filter(None, notes))


class _Graph:
    """The main graph, with where values come from and how many read them."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.initializer = graph.initializer
        self.producers = {name: node for node in graph.node for name in node.output}
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self._outputs = {value.name for value in graph.output}
        self.needed = set(self._outputs)
        """Values that an output follows from."""
        for node in reversed(graph.node):
            if not self.needed.isdisjoint(node.output):
                self.needed.update(node.input)
                for nested in subgraphs(node):
                    self.needed |= used_names(nested)
        self._readers: dict[str, int] = {}
        for nested in all_graphs(graph):
            for node in nested.node:
                for name in node.input:
                    self._readers[name] = self._readers.get(name, 0) + 1

    def source(self, output: str) -> tuple[onnx.NodeProto | None, list[onnx.NodeProto]]:
        """The node that an output's text comes from, and those that it passes through.

        None where something else reads the text on its way.
        """
        node, passed = self.producers.get(output), []
        while node is not None and node.op_type in _PASSING and not node.domain:
            passed.append(node)
            node = self.producers.get(node.input[0])
        own = not self._readers.get(output) and all(
            self._readers[step.input[0]] == 1 and step.input[0] not in self._outputs
            for step in passed
        )
        return (node if own else None), passed

    def table(self, name: str) -> onnx.TensorProto | None:
        """A constant of text; None for anything else."""
        from onnx import TensorProto

        tensor = self.constants.get(name)
        node = self.producers.get(name)
        if node is not None and node.op_type == "Constant" and node.attribute[0].name == "value":
            tensor = node.attribute[0].t
        return tensor if tensor is not None and tensor.data_type == TensorProto.STRING else None


def _drop_zipmap(graph: _Graph, output: onnx.ValueInfoProto) -> str:
    from onnx import TensorProto, helper

    node, passed = graph.source(output.name)
    if node is None or passed or (node.domain, node.op_type) != (_ML, "ZipMap"):
        return ""
    labels = _attribute(node, "classlabels_strings") or _attribute(node, "classlabels_int64s")
    node.domain, node.op_type = "", "Identity"
    del node.attribute[:]
    matrix = helper.make_tensor_value_info(output.name, TensorProto.FLOAT, ["batch", len(labels)])
    output.CopyFrom(matrix)
    return f"output {output.name!r} has a column for each class, in this order: {_listing(labels)}"


def _number_labels(graph: _Graph, output: onnx.ValueInfoProto) -> str:
    from onnx import TensorProto

    node, passed = graph.source(output.name)
    labels = [] if node is None else _number(graph, node)
    if not labels:
        return ""
    for step in passed:
        for attribute in step.attribute:
            if step.op_type == "Cast" and attribute.name == "to":
                attribute.i = TensorProto.INT64
    output.type.tensor_type.elem_type = TensorProto.INT64
    numbered = [f"{number} = {label!r}" for number, label in enumerate(labels)]
    return f"output {output.name!r} is the number of the class: {_listing(numbered)}"


def _number(graph: _Graph, node: onnx.NodeProto) -> list[str]:
    """Make a node give numbers for text; the text by number, empty where it gives no known text."""
    if node.domain == _ML and node.op_type in _CLASSIFIERS:
        labels: list[str] = _attribute(node, "classlabels_strings")
        if labels:
            numbers = list(range(len(labels)))
            _replace(node, "classlabels_strings", _CLASSIFIERS[node.op_type], numbers)
        return labels
    if (node.domain, node.op_type) == (_ML, "LabelEncoder"):
        return _number_encoder(node)
    if (node.domain, node.op_type) in ((_ML, "ArrayFeatureExtractor"), ("", "Gather")):
        return _number_table(graph, node)
    return []


def _number_encoder(node: onnx.NodeProto) -> list[str]:
    texts = _attribute(node, "values_strings")
    labels = list(dict.fromkeys(texts))
    if labels:
        numbers = [labels.index(text) for text in texts]
        _replace(node, "values_strings", "values_int64s", numbers)
        other = _attribute(node, "default_string")
        number = labels.index(other) if other in labels else -1
        _replace(node, "default_string", "default_int64", number)
    return labels


def _number_table(graph: _Graph, node: onnx.NodeProto) -> list[str]:
    """The table keeps its shape; its entries become their own places in it."""
    import numpy as np
    from onnx import numpy_helper

    table = graph.table(node.input[0])
    if table is None:
        return []
    labels = [text.decode("utf-8", "replace") for text in table.string_data]
    numbers = np.arange(len(labels)).reshape(tuple(table.dims))
    node.input[0] = f"{node.output[0]}/numbers"
    graph.initializer.append(numpy_helper.from_array(numbers, node.input[0]))
    return labels


def _attribute(node: onnx.NodeProto, name: str) -> Any:
    """An attribute's value, bytes as text; an empty list where it is not there."""
    import onnx

    for attribute in node.attribute:
        if attribute.name == name:
            value = onnx.helper.get_attribute_value(attribute)
            if isinstance(value, bytes):
                return value.decode("utf-8", "replace")
            return [x.decode("utf-8", "replace") if isinstance(x, bytes) else x for x in value]
    return []


def _replace(node: onnx.NodeProto, old: str, new: str, value: int | Sequence[int]) -> None:
    import onnx

    kept = [attribute for attribute in node.attribute if attribute.name not in (old, new)]
    del node.attribute[:]
    node.attribute.extend([*kept, onnx.helper.make_attribute(new, value)])


def _listing(words: Sequence[object]) -> str:
    shown = ", ".join(map(str, words[:_SHOWN]))
    return shown if len(words) <= _SHOWN else f"{shown}, ... ({len(words)} in all)"

"""Values of unknown rank, hidden from a tool that does not take them.

onnxsim's checker asks for the rank of all that a graph takes and gives, those inside other nodes too.
Exporters leave it out, and what a Loop carries may have none. The tool looks no further than the main
graph: there a node with such a graph becomes an unknown operator, and an output of unknown rank becomes
a scalar that an unknown operator makes of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgepack.importers.graphs import all_graphs, subgraphs
from edgepack.importers.passes.inlining import outer_names, rename_uses

if TYPE_CHECKING:
    import onnx

_DOMAIN, _OPERATOR = "edgepack.hidden", "Hidden"


def without_unranked(
    model: onnx.ModelProto, transform: Callable[[onnx.ModelProto], onnx.ModelProto]
) -> onnx.ModelProto:
    """What ``transform`` makes of the model; it does not see values of unknown rank."""
    hidden = _Hidden()
    hidden.hide(model)
    if not hidden.nodes and not hidden.outputs:
        return transform(model)
    model.opset_import.add(domain=_DOMAIN, version=1)
    model = transform(model)
    hidden.show(model)
    kept = [entry for entry in model.opset_import if entry.domain != _DOMAIN]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    return model


@dataclass(frozen=True, kw_only=True)
class _Hidden:
    """What stands in a model no longer, by the number of the node that stands for it."""

    nodes: dict[int, onnx.NodeProto] = field(default_factory=dict)
    outputs: dict[int, onnx.ValueInfoProto] = field(default_factory=dict)

    def hide(self, model: onnx.ModelProto) -> None:
        """Take them out."""
        import onnx

        graph = model.graph
        for node in graph.node:
            if not all(_ranked(v) for g in subgraphs(node) for v in _interface(g)):
                self._hide_node(node, len(self.nodes))
        for value in graph.output:
            if not _ranked(value):
                number = len(self.nodes) + len(self.outputs)
                self.outputs[number] = onnx.ValueInfoProto()
                self.outputs[number].CopyFrom(value)
                node = graph.node.add(op_type=_OPERATOR, domain=_DOMAIN, input=[value.name])
                value.name = f"{_DOMAIN}/{number}"
                value.type.tensor_type.shape.SetInParent()
                node.output.append(value.name)
                node.attribute.append(onnx.helper.make_attribute("number", number))

    def _hide_node(self, node: onnx.NodeProto, number: int) -> None:
        import onnx

        copy = self.nodes[number] = onnx.NodeProto()
        copy.CopyFrom(node)
        node.input[:] = _inputs(copy)
        node.op_type, node.domain = _OPERATOR, _DOMAIN
        del node.attribute[:]
        # With a number of its own no two are the same.
        node.attribute.append(onnx.helper.make_attribute("number", number))

    def show(self, model: onnx.ModelProto) -> None:
        """Put them back."""
        graph = model.graph
        for node in graph.node:
            if node.domain != _DOMAIN:
                continue
            number = node.attribute[0].i
            if number in self.nodes:
                _restore(node, self.nodes[number])
            else:
                self._show_output(graph, node, number)
        kept = [node for node in graph.node if node.domain != _DOMAIN]
        del graph.node[:]
        graph.node.extend(kept)

    def _show_output(self, graph: onnx.GraphProto, node: onnx.NodeProto, number: int) -> None:
        value, given = self.outputs[number], node.input[0]
        others = {output.name for output in graph.output}
        for output in graph.output:
            if output.name == node.output[0]:
                output.CopyFrom(value)
        if given == value.name:
            return  # taken out with all that stand for something
        if given not in others and any(given in other.output for other in graph.node):
            _rename(graph, given, value.name)
            return
        node.op_type, node.domain = "Identity", ""
        node.output[:] = [value.name]
        del node.attribute[:]


def _ranked(value: onnx.ValueInfoProto) -> bool:
    tensor = value.type.tensor_type
    return value.type.WhichOneof("value") != "tensor_type" or bool(tensor.HasField("shape"))


def _interface(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """All that a graph and those nested in it take and give."""
    return [value for g in all_graphs(graph) for value in (*g.input, *g.output)]


def _rename(graph: onnx.GraphProto, name: str, new: str) -> None:
    for node in graph.node:
        rename_uses(node, {name: new})
        node.output[:] = [new if made == name else made for made in node.output]


def _restore(node: onnx.NodeProto, original: onnx.NodeProto) -> None:
    """Let the node be what it was; what it reads may have got other names."""
    pairs = zip(_inputs(original), node.input, strict=False)
    renamed = {old: new for old, new in pairs if old != new}
    outputs, name = list(node.output), node.name
    node.CopyFrom(original)
    rename_uses(node, renamed)
    node.output[:] = outputs
    node.name = name


def _inputs(node: onnx.NodeProto) -> list[str]:
    return [*node.input, *sorted(outer_names(node) - set(node.input))]

"""An editor of any one graph of a model: the main one, or one that a node holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from edgepack.importers.graphs import all_graphs
from edgepack.importers.passes.editor import GraphEditor

if TYPE_CHECKING:
    import onnx

Rewrite = Callable[["onnx.NodeProto"], bool]


class SubgraphEditor(GraphEditor):
    """Edits one graph in place; fresh names are new to the whole model."""

    def __init__(self, model: onnx.ModelProto, graph: onnx.GraphProto) -> None:
        super().__init__(model)
        self.graph = graph
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self._types = {
            value.name: value.type.tensor_type
            for value in (*graph.input, *graph.value_info, *graph.output)
        }

    def put_first(self, word: str, emit: Callable[[], None]) -> None:
        """Let the nodes that ``emit`` emits begin the graph; ``word`` begins their names."""
        self._nodes, self._prefix = [], word
        emit()
        kept = list(self.graph.node)
        del self.graph.node[:]
        self.graph.node.extend([*self._nodes, *kept])


def edit_all(model: onnx.ModelProto, begin: Callable[[SubgraphEditor], Rewrite]) -> None:
    """Replace nodes as GraphEditor.replace does, in every graph; ``begin`` gives what rewrites one."""
    # The innermost first: replacing a node copies the graphs in it.
    for graph in reversed(list(all_graphs(model.graph))):
        editor = SubgraphEditor(model, graph)
        editor.replace(begin(editor))

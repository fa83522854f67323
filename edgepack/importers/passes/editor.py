"""What the passes share: fresh names, constants, and replacing a node by several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from edgepack.importers.graphs import all_graphs

if TYPE_CHECKING:
    import numpy as np
    import onnx


class GraphEditor:
    """Edits a model's main graph in place."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph = model.graph
        self.opset: int = next(
            (x.version for x in model.opset_import if x.domain in ("", "ai.onnx")), 1
        )
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self._types = {
            value.name: value.type.tensor_type
            for value in (*self.graph.input, *self.graph.value_info, *self.graph.output)
        }
        self._others = {
            value.name
            for value in (*self.graph.input, *self.graph.value_info, *self.graph.output)
            if value.type.WhichOneof("value") not in (None, "tensor_type")
        }
        self._names = _all_names(model.graph)
        self._nodes: list[onnx.NodeProto] = []
        self._prefix = ""

    def replace(self, rewrite: Callable[[onnx.NodeProto], bool]) -> bool:
        """Call ``rewrite`` for each node in order; where it returns True, the nodes that it emitted
        take the node's place. Returns whether any did.
        """
        kept: list[onnx.NodeProto] = []
        changed = False
        for node in self.graph.node:
            self._nodes = []
            self._prefix = node.name or (node.output[0] if node.output else node.op_type)
            if rewrite(node):
                kept.extend(self._nodes)
                changed = True
            else:
                kept.append(node)
        if changed:
            del self.graph.node[:]
            self.graph.node.extend(kept)
        return changed

    def fresh(self, word: str) -> str:
        """A name that nothing in the model has, made of the current node's name and ``word``."""
        return self.unique(f"{self._prefix}/{word}")

    def unique(self, wanted: str) -> str:
        """``wanted``, or with a number after it, so that nothing in the model has the name."""
        name = wanted
        number = 1
        while name in self._names:
            number += 1
            name = f"{wanted}_{number}"
        self._names.add(name)
        return name

    def constant_value(self, name: str) -> np.ndarray | None:
        """The value of an initializer, or None for anything else."""
        from onnx import numpy_helper

        tensor = self._constants.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def shape(self, name: str) -> tuple[int, ...] | None:
        """The inferred shape of a value, or None where it is not fixed."""
        if name in self._constants:
            return tuple(self._constants[name].dims)
        tensor = self._types.get(name)
        if tensor is None or not tensor.HasField("shape"):
            return None
        if not all(dim.HasField("dim_value") for dim in tensor.shape.dim):
            return None
        return tuple(dim.dim_value for dim in tensor.shape.dim)

    def is_not_tensor(self, name: str) -> bool:
        """Whether a value is known to be a sequence, a map or an optional."""
        return name in self._others

    def constant(self, word: str, value: np.ndarray) -> str:
        """Add an initializer and return its name."""
        from onnx import numpy_helper

        name = self.fresh(word)
        self.add_constant(numpy_helper.from_array(value, name))
        return name

    def add_constant(self, tensor: onnx.TensorProto) -> None:
        """Add an initializer that has a fresh name already."""
        self.graph.initializer.append(tensor)
        self._constants[tensor.name] = self.graph.initializer[-1]

    def emit(self, op: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:
        """Add a node with one output and return that; its name is fresh unless given."""
        name = output or self.fresh(op.lower())
        self.emit_many(op, inputs, [name], **attributes)
        return name

    def emit_many(
        self, op: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any
    ) -> None:
        """Add a node with several outputs."""
        import onnx

        name = attributes.pop("name", "") or self.fresh("node")
        self._nodes.append(onnx.helper.make_node(op, inputs, outputs, name=name, **attributes))

    def adopt(self, node: onnx.NodeProto) -> None:
        """Add a node as it is."""
        self._nodes.append(node)

    def reshape(self, value: str, shape: Sequence[int], output: str = "") -> str:
        """Emit a Reshape to a fixed shape."""
        import numpy as np

        return self.emit(
            "Reshape", [value, self.constant("shape", np.array(shape, np.int64))], output
        )

    def split(self, value: str, parts: int, size: int, axis: int) -> list[str]:
        """Emit a Split into ``parts`` of ``size`` each, in the form that the opset has."""
        import numpy as np

        if parts == 1:
            return [value]
        outputs = [self.fresh(f"part{i}") for i in range(parts)]
        sizes = [size] * parts
        if self.opset < 13:
            self.emit_many("Split", [value], outputs, axis=axis, split=sizes)
        else:
            sizes_name = self.constant("sizes", np.array(sizes, np.int64))
            self.emit_many("Split", [value, sizes_name], outputs, axis=axis)
        return outputs

    def concat(self, values: Sequence[str], axis: int, output: str = "") -> str:
        """Emit a Concat; one value alone passes through."""
        if len(values) == 1 and not output:
            return values[0]
        return self.emit("Concat", values, output, axis=axis)


def _all_names(graph: onnx.GraphProto) -> set[str]:
    names: set[str] = set()
    for nested in all_graphs(graph):
        names.update(value.name for value in (*nested.input, *nested.output))
        names.update(tensor.name for tensor in nested.initializer)
        for node in nested.node:
            names.update((node.name, *node.output))
    return names

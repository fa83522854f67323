"""Bounds for cases whose output shapes depend on data: as many rows as the right answers have."""

from __future__ import annotations

import onnx

from conformance.cases import Case
from edgepack.importers.bounds import TAKERS

_DECIDING = {"Compress": (1,), "Loop": (0, 1), "Range": (0, 1, 2), "TopK": (1,)}
"""Inputs that decide how many rows there are; of the other operators, the first."""
_KNOWS_SHAPES = ("Shape", "Size")


def bounds_of(case: Case) -> dict[str, int]:
    """What ``ImportOptions.bounds`` takes: nodes, by name or first output, with a number of rows."""
    extents = [
        extent for _, wanted in case.data for array in wanted.values() for extent in array.shape
    ]
    most = max([1, *extents])
    return {
        node.name or next(name for name in node.output if name): most
        for node in _depending_on_data(case.model.graph)
    }


def _depending_on_data(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Nodes of the main graph whose number of rows comes from the model's inputs."""
    constants = {tensor.name for tensor in graph.initializer}
    computed = {value.name for value in graph.input} - constants
    found = []
    for node in graph.node:
        if node.op_type in TAKERS:
            deciding = _DECIDING.get(node.op_type, (0,))
            if computed & {node.input[i] for i in deciding if i < len(node.input)}:
                found.append(node)
        if node.op_type not in _KNOWS_SHAPES and computed & set(node.input):
            computed.update(node.output)
    return found

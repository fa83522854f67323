"""Operators whose output has as many rows as data say: each gets its bound here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgepack.importers.bounded.detections import non_max_suppression
from edgepack.importers.bounded.distinct import unique
from edgepack.importers.bounded.nodes import name_of
from edgepack.importers.bounded.ordering import K_IS_AN_INPUT, unknown_top_k
from edgepack.importers.bounded.positions import compress, first_rows, non_zero
from edgepack.importers.bounded.sizes import fixed
from edgepack.importers.bounded.tensors import INT64
from edgepack.importers.bounded.walk import Rule, Walk
from edgepack.importers.own_operators import DOMAIN, ROWS

if TYPE_CHECKING:
    import onnx


def is_source(walk: Walk, node: onnx.NodeProto) -> bool:
    """Whether a node's output has a number of rows that comes from data."""
    if (node.domain, node.op_type) not in SOURCES:
        return False
    if node.op_type == "TopK":
        return walk.opset >= K_IS_AN_INPUT and walk.integers(node.input[1]) is None
    if node.op_type == "Range":
        return any(walk.integers(name) is None for name in node.input) and not _is_constant(
            walk, node
        )
    return True


def _is_constant(walk: Walk, node: onnx.NodeProto) -> bool:
    return all(walk.constant(name) is not None for name in node.input)


def _range(walk: Walk, node: onnx.NodeProto) -> None:
    """``start + i * delta`` for as many i as fit before the limit, which the model computes."""
    import onnx

    start, limit, delta = (walk.emit("Reshape", [n, walk.numeral([])]) for n in node.input)
    given = walk.tensor(start)
    bound = walk.bound(node, None, stated=False)
    # Exact for all numbers that anything counts with: integers below 2^53.
    double = onnx.TensorProto.DOUBLE
    ends = [walk.emit("Cast", [value], to=double) for value in (start, limit, delta)]
    length = walk.emit("Div", [walk.emit("Sub", [ends[1], ends[0]]), ends[2]])
    # A division by zero gives NaN or infinity: neither may be cast.
    zero, most = walk.numeral(0, "float64"), walk.numeral(bound, "float64")
    length = walk.emit("Where", [walk.emit("Less", [zero, length]), length, zero])
    length = walk.emit("Where", [walk.emit("Less", [length, most]), length, most])
    count = walk.emit("Cast", [walk.emit("Ceil", [length])], to=INT64)
    size = walk.count(count, bound, name_of(node))
    steps = walk.numeral(list(range(bound)), given.dtype)
    offsets = walk.emit("Mul", [steps, delta], [size])
    walk.emit("Add", [start, offsets], [size], node.output[0])


def _rows(walk: Walk, node: onnx.NodeProto) -> None:
    """The marker goes, and what it said of its input is known from here on."""
    value, rows = node.input
    given = walk.tensor(value)
    bound = walk.bound(node, given.shape[0], stated=True)
    size = walk.count(rows, given.shape[0], name_of(node))
    sizes = (size, *given.sizes[1:])
    if bound < given.shape[0]:
        size = walk.least_of(size, fixed(bound))
        value = first_rows(walk, value, bound)
        sizes = (size, *given.sizes[1:])
    walk.emit("Identity", [value], sizes, node.output[0])


SOURCES: dict[tuple[str, str], Rule] = {
    ("", "NonZero"): non_zero,
    ("", "Compress"): compress,
    ("", "Unique"): unique,
    ("", "NonMaxSuppression"): non_max_suppression,
    ("", "Range"): _range,
    ("", "TopK"): unknown_top_k,
    (DOMAIN, ROWS): _rows,
}
"""By domain and operator."""

"""Reductions: over the axis whose size depends on data, padding is first made to count for nothing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from edgepack.importers.bounded.nodes import attribute
from edgepack.importers.bounded.ordering import K_IS_AN_INPUT, extreme, top_k
from edgepack.importers.bounded.rowwise import ONE
from edgepack.importers.bounded.sizes import Size, fixed, product
from edgepack.importers.bounded.tensors import Tensor
from edgepack.importers.bounded.walk import Rule, Walk

if TYPE_CHECKING:
    import onnx

_AXES_ARE_AN_INPUT = {"ReduceSum": 13}
"""Opset from which a reduction takes axes as an input; 18 for the others."""


def _reduce(neutral: Callable[[Tensor], Any], walk: Walk, node: onnx.NodeProto) -> None:
    given = walk.tensor(node.input[0])
    axes = _axes(walk, node, given.rank)
    inside = [axis for axis in axes if axis in given.padded]
    if inside:
        node.input[0] = walk.masked(node.input[0], inside, neutral(given))
    walk.keep(node, _reduced(node, given, axes))


def _mean(walk: Walk, node: onnx.NodeProto) -> None:
    """The sum over the rows that there are, divided by their number."""
    import numpy as np

    given = walk.tensor(node.input[0])
    axes = _axes(walk, node, given.rank)
    sizes = _reduced(node, given, axes)
    inside = [axis for axis in axes if axis in given.padded]
    if not inside:
        walk.keep(node, sizes)
        return
    number = product(given.sizes[axis] for axis in axes).size
    if number is None:
        raise walk.refuse(node, "it averages over several axes of such a size")
    value = walk.masked(node.input[0], inside, 0)
    keep = attribute(node, "keepdims", 1)
    if walk.opset >= _AXES_ARE_AN_INPUT["ReduceSum"]:
        reduced = [value, walk.numeral(axes)]
        total = walk.emit("ReduceSum", reduced, sizes, keepdims=keep)
    else:
        total = walk.emit("ReduceSum", [value], sizes, axes=axes, keepdims=keep)
    dtype = np.dtype(given.dtype)
    count = walk.emit("Cast", [walk.scalar(number)], to=given.element)
    if dtype.kind in "iu":
        count = walk.emit("Max", [count, walk.numeral(1, dtype)])
    walk.emit("Div", [total, count], sizes, node.output[0])


def _arg(walk: Walk, node: onnx.NodeProto) -> None:
    given = walk.tensor(node.input[0])
    axis = attribute(node, "axis", 0) % max(given.rank, 1)
    if axis in given.padded:
        if attribute(node, "select_last_index", 0):
            raise walk.refuse(node, "of equal elements it takes the last")
        lowest = node.op_type == "ArgMax"
        node.input[0] = walk.masked(node.input[0], [axis], extreme(given, lowest=lowest))
    walk.keep(node, _reduced(node, given, [axis]))


def _top_k(walk: Walk, node: onnx.NodeProto) -> None:
    """A number that is fixed, or follows from how many rows there are."""
    given = walk.tensor(node.input[0])
    axis = attribute(node, "axis", -1) % given.rank
    if walk.opset < K_IS_AN_INPUT:
        if axis in given.padded:
            raise walk.refuse(node, "this opset's TopK cannot be told")
        sizes = list(given.sizes)
        sizes[axis] = fixed(attribute(node, "k"))
        walk.keep(node, sizes, sizes)
        return
    numbers = walk.integers(node.input[1])
    assert numbers is not None
    top_k(walk, node, axis, walk.not_negative(numbers[0]))


def _axes(walk: Walk, node: onnx.NodeProto, rank: int) -> list[int]:
    """The axes that a reduction goes over."""
    axes = attribute(node, "axes")
    if axes is None and len(node.input) > 1 and node.input[1]:
        axes = walk.numbers(node.input[1])
        if axes is None:
            raise walk.refuse(node, "its axes depend on data")
    if not axes:
        axes = [] if attribute(node, "noop_with_empty_axes", 0) else list(range(rank))
    return sorted(axis % rank for axis in axes)


def _reduced(node: onnx.NodeProto, given: Tensor, axes: list[int]) -> list[Size]:
    keep = attribute(node, "keepdims", 1)
    sizes = [ONE if axis in axes else size for axis, size in enumerate(given.sizes)]
    return [size for axis, size in enumerate(sizes) if keep or axis not in axes]


def _zero(tensor: Tensor) -> Any:
    return 0


def _one(tensor: Tensor) -> Any:
    return 1


RULES: dict[str, Rule] = {
    **dict.fromkeys(("ArgMax", "ArgMin"), _arg),
    **dict.fromkeys(
        ("ReduceL1", "ReduceL2", "ReduceSum", "ReduceSumSquare"), partial(_reduce, _zero)
    ),
    **dict.fromkeys(
        ("ReduceLogSumExp", "ReduceMax"), partial(_reduce, partial(extreme, lowest=True))
    ),
    "ReduceLogSum": partial(_reduce, _zero),
    "ReduceMean": _mean,
    "ReduceMin": partial(_reduce, partial(extreme, lowest=False)),
    "ReduceProd": partial(_reduce, _one),
    "TopK": _top_k,
}
"""By operator of ONNX's own domain."""

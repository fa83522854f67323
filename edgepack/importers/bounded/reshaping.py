"""Operators that arrange elements anew: padding has to stay behind what is there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgepack.importers.bounded.nodes import attribute
from edgepack.importers.bounded.rowwise import ONE
from edgepack.importers.bounded.sizes import Product, Size, fixed, product
from edgepack.importers.bounded.walk import Rule, Walk

if TYPE_CHECKING:
    import onnx


def _reshape(walk: Walk, node: onnx.NodeProto) -> None:
    wanted = walk.integers(node.input[1])
    given = walk.tensor(node.input[0])
    if wanted is None:
        raise walk.refuse(node, "the shape that it makes is computed")
    target: list[Size | None] = []
    for axis, size in enumerate(wanted):
        if size == fixed(0) and not attribute(node, "allowzero", 0):
            target.append(given.sizes[axis])
        else:
            target.append(None if size == fixed(-1) else size)
    arrange(walk, node, node.input[0], target)


def _flatten(walk: Walk, node: onnx.NodeProto) -> None:
    given = walk.tensor(node.input[0])
    axis = attribute(node, "axis", 1)
    axis += given.rank if axis < 0 else 0
    parts = [product(given.sizes[:axis]).size, product(given.sizes[axis:]).size]
    if None in parts:
        raise walk.refuse(node, "it joins two axes of such a size")
    arrange(walk, node, node.input[0], parts)


def _squeeze(walk: Walk, node: onnx.NodeProto) -> None:
    given = walk.tensor(node.input[0])
    axes = _axes(walk, node)
    if axes is None:
        raise walk.refuse(node, "it removes any axis that happens to be 1")
    axes = [axis % given.rank for axis in axes]
    if any(given.sizes[axis] != ONE for axis in axes):
        raise walk.refuse(node, "it removes an axis that need not be 1")
    sizes = [size for axis, size in enumerate(given.sizes) if axis not in axes]
    walk.reshape(node.input[0], sizes, node.output[0])


def _unsqueeze(walk: Walk, node: onnx.NodeProto) -> None:
    given = walk.tensor(node.input[0])
    axes = _axes(walk, node)
    if axes is None:
        raise walk.refuse(node, "its axes depend on data")
    rank = given.rank + len(axes)
    places = {axis % rank for axis in axes}
    rest = iter(given.sizes)
    sizes = [ONE if axis in places else next(rest) for axis in range(rank)]
    walk.reshape(node.input[0], sizes, node.output[0])


def _axes(walk: Walk, node: onnx.NodeProto) -> list[int] | None:
    """Axes that are an attribute in older opsets and an input in newer ones."""
    axes: list[int] | None = attribute(node, "axes")
    if axes is None and len(node.input) > 1 and node.input[1]:
        axes = walk.numbers(node.input[1])
    return axes


def arrange(walk: Walk, node: onnx.NodeProto, value: str, target: Sequence[Size | None]) -> None:
    """Emit a Reshape to ``target``, in which None stands for what is left.

    Axes are matched in groups of equal products. In a group with a size that depends on data, that
    axis must come first before and after, so that what is not padding stays in front.
    """
    given = walk.tensor(value)
    sizes = _completed(given.sizes, target)
    if sizes is None or not _keeps_order(given.sizes, sizes):
        raise walk.refuse(
            node, f"from {_text(given.sizes)} to {_text(target)} rows would not stay together"
        )
    walk.reshape(value, sizes, node.output[0])


def _completed(given: Sequence[Size], target: Sequence[Size | None]) -> list[Size] | None:
    known = [size for size in target if size is not None]
    if len(known) == len(target):
        return known
    rest = product(given).divided(product(known))
    size = rest.size if rest is not None else None
    if size is None or len(known) + 1 != len(target):
        return None
    return [size if wanted is None else wanted for wanted in target]


def _keeps_order(before: Sequence[Size], after: Sequence[Size]) -> bool:
    a, b = list(before), list(after)
    while a or b:
        left: list[Size] = []
        right: list[Size] = []
        if not _take_group(a, b, left, right):
            return False
        if any(_follows(group) for group in (left, right)):
            return False
    return True


def _take_group(a: list[Size], b: list[Size], left: list[Size], right: list[Size]) -> bool:
    """Move the shortest leading parts of equal product from ``a`` and ``b``; whether there are any."""
    while True:
        first, second = product(left), product(right)
        if (left or right) and first == second:
            return True
        side, into = (a, left) if _is_behind(first, second, a, left) else (b, right)
        if not side:
            side, into = (b, right) if side is a else (a, left)
        if not side:
            return False
        into.append(side.pop(0))


def _is_behind(first: Product, second: Product, a: list[Size], left: list[Size]) -> bool:
    return first.most < second.most or (not left and bool(a))


def _follows(group: Sequence[Size]) -> bool:
    """Whether a size that depends on data comes after another axis, in a group of several."""
    real = [size for size in group if size != ONE]
    return any(not size.is_fixed for size in real[1:])


def _text(sizes: Sequence[Size | None]) -> str:
    words = ("?" if s is None else str(s.constant) if s.is_fixed else "n" for s in sizes)
    return f"[{', '.join(words)}]"


def _expand(walk: Walk, node: onnx.NodeProto) -> None:
    given = walk.tensor(node.input[0])
    wanted = walk.integers(node.input[1])
    if wanted is None:
        raise walk.refuse(node, "the shape that it makes is computed")
    rank = max(given.rank, len(wanted))
    before = [ONE] * (rank - given.rank) + list(given.sizes)
    target = [ONE] * (rank - len(wanted)) + wanted
    sizes = []
    for own, other in zip(before, target, strict=True):
        if own not in (ONE, other) and other != ONE:
            raise walk.refuse(node, "its operands have sizes that need not be the same")
        sizes.append(own if other == ONE else other)
    shape = walk.numeral([size.most for size in sizes])
    walk.emit("Expand", [node.input[0], shape], sizes, node.output[0])


def _tile(walk: Walk, node: onnx.NodeProto) -> None:
    given = walk.tensor(node.input[0])
    repeats = walk.integers(node.input[1])
    if repeats is None:
        raise walk.refuse(node, "how often it repeats is computed")
    sizes = []
    for size, times in zip(given.sizes, repeats, strict=True):
        if not size.is_fixed and times != ONE:
            raise walk.refuse(node, "it repeats them")
        if not times.is_fixed and size != ONE:
            raise walk.refuse(node, "it repeats several rows")
        sizes.append(times if size == ONE else size.times(times.constant))
    counts = walk.numeral([times.most for times in repeats])
    walk.emit("Tile", [node.input[0], counts], sizes, node.output[0])


def _constant_of_shape(walk: Walk, node: onnx.NodeProto) -> None:
    sizes = walk.integers(node.input[0])
    if sizes is None:
        raise walk.refuse(node, "the shape that it makes is computed")
    node.input[0] = walk.numeral([size.most for size in sizes])
    walk.keep(node, sizes)


def _range(walk: Walk, node: onnx.NodeProto) -> None:
    import numpy as np

    bounds = [walk.integers(name) for name in node.input]
    start, limit, delta = (found[0] if found else None for found in bounds)
    if start is None or limit is None or delta != ONE or not start.is_fixed:
        raise walk.refuse(node, "its ends are computed")
    size = walk.not_negative(limit.minus(start))
    dtype = walk.tensor(node.input[0]).dtype
    rows = walk.numeral(np.arange(start.constant, start.constant + size.most), dtype)
    walk.emit("Identity", [rows], [size], node.output[0])


RULES: dict[str, Rule] = {
    "ConstantOfShape": _constant_of_shape,
    "Expand": _expand,
    "Flatten": _flatten,
    "Range": _range,
    "Reshape": _reshape,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Unsqueeze": _unsqueeze,
}
"""By operator of ONNX's own domain."""

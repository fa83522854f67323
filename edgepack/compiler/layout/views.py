"""Reshapes and transposes: the same elements under other axes. Nothing is moved here."""

from __future__ import annotations

from typing import Any

from edgepack.compiler.layout.rewrite import Rewriter, Rule
from edgepack.compiler.layout.tensors import Forms, Order, Shape, Tensor, shape_of

Groups = list[tuple[Order, Order]]
"""Axes before a reshape, and those after it that hold the same elements."""


def _permute_dims(rewriter: Rewriter, call: Any) -> Tensor:
    data = rewriter.tensor(call.args[0])
    if call.attrs.axes is None:
        return data.transposed(data.identity[::-1])
    return data.transposed(tuple(int(axis) % data.rank for axis in call.attrs.axes))


def _reshape(rewriter: Rewriter, call: Any) -> Tensor | None:
    data, shape = rewriter.tensor(call.args[0]), shape_of(call)
    if data.size == 0:
        return None
    groups = _groups(data.shape, shape)
    forms: Forms = {}
    for order in data.orders():
        if (seen := _regrouped(order, data.shape, groups)) is not None:
            raw = data.raw(order)
            forms[seen] = {shape_of(raw): raw}
    if not forms:
        return rewriter.made(call, tuple(range(len(shape))), data.at(data.identity))
    return Tensor(rewriter.emitter, shape, forms)


def _groups(before: Shape, after: Shape) -> Groups:
    """The smallest groups of neighbouring axes whose products agree; axes of extent 1 in none."""
    left = [axis for axis, extent in enumerate(before) if extent != 1]
    right = [axis for axis, extent in enumerate(after) if extent != 1]
    groups: Groups = []
    while left:
        old, new = [left.pop(0)], [right.pop(0)]
        sizes = [before[old[0]], after[new[0]]]
        while sizes[0] != sizes[1]:
            if sizes[0] < sizes[1]:
                old.append(left.pop(0))
                sizes[0] *= before[old[-1]]
            else:
                new.append(right.pop(0))
                sizes[1] *= after[new[-1]]
        groups.append((tuple(old), tuple(new)))
    return groups


def _regrouped(order: Order, shape: Shape, groups: Groups) -> Order | None:
    """``order`` in terms of the axes after a reshape; None if it tears a group apart."""
    by_first = {old[0]: (old, new) for old, new in groups}
    rest = tuple(axis for axis in order if shape[axis] != 1)
    seen: Order = ()
    while rest:
        old, new = by_first.get(rest[0], ((), ()))
        if not old or rest[: len(old)] != old:
            return None
        seen, rest = seen + new, rest[len(old) :]
    return seen


RULES: dict[str, Rule] = {
    "relax.permute_dims": _permute_dims,
    "relax.reshape": _reshape,
    "relax.expand_dims": _reshape,
    "relax.squeeze": _reshape,
    "relax.flatten": _reshape,
    "relax.nn.batch_flatten": _reshape,
}

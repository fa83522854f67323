"""Einsum as what the fast kernels know: transpositions, sums, products and matrix products.

    "bij,bjk->bik"   two operands at a time become [shared, left, summed] x [shared, summed, right]

A letter twice in one operand is its diagonal; dots stand for letters of their own, which broadcast.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgepack.compiler.frontend.converters.values import cast, reshaped, widened
from edgepack.compiler.frontend.converters.views import permuted
from edgepack.compiler.frontend.node import Converter, Node, shape_of

DOMAIN = ""

_DOTS = "..."


@dataclass(frozen=True, kw_only=True)
class _Term:
    """A tensor whose axes have labels, none twice; a label of extent 1 broadcasts."""

    data: Any
    labels: tuple[str, ...]

    def extent(self, label: str) -> int:
        """1 where it has no such axis."""
        return shape_of(self.data)[self.labels.index(label)] if label in self.labels else 1


def _einsum(node: Node) -> Any:
    equation = str(node.attributes["equation"]).replace(" ", "")
    operands, arrow, result = equation.partition("->")
    ranks = [len(node.shape(index)) for index in range(len(node.inputs))]
    labels = _labels_of(operands.split(","), ranks)
    wanted = _expanded(result, max(_dots(text, rank) for text, rank in _pairs(operands, ranks)))
    if not arrow:
        wanted = _implicit(labels)
    terms = [
        _diagonal(node, _Term(data=widened(node, data), labels=names))
        for data, names in zip(node.inputs, labels, strict=True)
    ]
    total, *rest = terms
    for position, term in enumerate(rest):
        later = {label for other in rest[position + 1 :] for label in other.labels} | {*wanted}
        total = _contracted(node, total, term, later)
    return cast(_ordered(node, total, wanted), node.dtype())


def _pairs(operands: str, ranks: Sequence[int]) -> list[tuple[str, int]]:
    return list(zip(operands.split(","), ranks, strict=True))


def _dots(text: str, rank: int) -> int:
    """How many axes the dots of an operand stand for."""
    return rank - len(text.replace(_DOTS, "")) if _DOTS in text else 0


def _labels_of(operands: Sequence[str], ranks: Sequence[int]) -> list[tuple[str, ...]]:
    pairs = zip(operands, ranks, strict=True)
    return [_expanded(text, _dots(text, rank)) for text, rank in pairs]


def _expanded(text: str, dots: int) -> tuple[str, ...]:
    """Labels, the dots as numbers: those of an operand with fewer are the last ones."""
    before, found, after = text.partition(_DOTS)
    numbers = [str(dots - i) for i in range(dots)] if found else []
    return (*before, *numbers, *after)


def _implicit(labels: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """Without an arrow: the dots, and in alphabetical order the letters that occur once."""
    everywhere = [label for names in labels for label in names]
    dots = sorted({label for label in everywhere if label.isdigit()}, key=int, reverse=True)
    letters = sorted(x for x in {*everywhere} if not x.isdigit() and everywhere.count(x) == 1)
    return (*dots, *letters)


def _diagonal(node: Node, term: _Term) -> _Term:
    """Of every label that the term has twice, the elements at the same place in both axes."""
    labels = tuple(dict.fromkeys(term.labels))
    if len(labels) == len(term.labels):
        return term
    shape = shape_of(term.data)
    extents = [shape[term.labels.index(label)] for label in labels]

    def kernel(x: Any) -> Any:
        from tvm import te

        def element(*at: Any) -> Any:
            return x(*(at[labels.index(label)] for label in term.labels))

        return te.compute(extents, element)

    return _Term(data=node.compute(kernel, term.data), labels=labels)


def _summed(node: Node, term: _Term, kept: set[str]) -> _Term:
    """``term`` without the labels that are not ``kept``."""
    from tvm import relax

    axes = [axis for axis, label in enumerate(term.labels) if label not in kept]
    if not axes:
        return term
    labels = tuple(label for label in term.labels if label in kept)
    return _Term(data=node.emit(relax.op.sum(term.data, axes)), labels=labels)


def _contracted(node: Node, left: _Term, right: _Term, later: set[str]) -> _Term:
    """The product of two terms, summed over what nothing ``later`` needs."""
    from tvm import relax

    left = _summed(node, left, {*right.labels} | later)
    right = _summed(node, right, {*left.labels} | later)
    common = [label for label in left.labels if label in right.labels]
    # What broadcasts against another extent is no axis of a matrix product.
    even = all(left.extent(label) == right.extent(label) for label in common)
    summed = [label for label in common if label not in later]
    if even and summed:
        return _matrix_product(node, left, right, common, summed)
    labels = (*left.labels, *(label for label in right.labels if label not in left.labels))
    operands = [_aligned(node, term, labels) for term in (left, right)]
    product = _Term(data=node.emit(relax.op.multiply(*operands)), labels=labels)
    return _summed(node, product, later)


def _matrix_product(
    node: Node, left: _Term, right: _Term, common: Sequence[str], summed: Sequence[str]
) -> _Term:
    """[shared, left's own, summed] x [shared, summed, right's own]."""
    from tvm import relax

    shared = [label for label in common if label not in summed]
    own_left = [label for label in left.labels if label not in common]
    own_right = [label for label in right.labels if label not in common]
    first = _grouped(node, left, (shared, own_left, list(summed)))
    second = _grouped(node, right, (shared, list(summed), own_right))
    product = node.emit(relax.op.matmul(first, second))
    extents = [left.extent(label) for label in (*shared, *own_left)]
    extents += [right.extent(label) for label in own_right]
    return _Term(
        data=node.emit(reshaped(product, extents)), labels=(*shared, *own_left, *own_right)
    )


def _grouped(node: Node, term: _Term, groups: Sequence[Sequence[str]]) -> Any:
    """A tensor with one axis for each group of labels, or none for a first group that is empty."""
    order = [term.labels.index(label) for group in groups for label in group]
    moved = node.emit(permuted(term.data, order))
    extents = [math.prod(term.extent(label) for label in group) for group in groups]
    return node.emit(reshaped(moved, extents if groups[0] else extents[1:]))


def _aligned(node: Node, term: _Term, labels: Sequence[str]) -> Any:
    """``term`` with its axes in the order of ``labels``, and axes of extent 1 for the others."""
    order = [term.labels.index(label) for label in labels if label in term.labels]
    moved = node.emit(permuted(term.data, order))
    return node.emit(reshaped(moved, [term.extent(label) for label in labels]))


def _ordered(node: Node, term: _Term, wanted: Sequence[str]) -> Any:
    term = _summed(node, term, {*wanted})
    return _aligned(node, term, wanted)


CONVERTERS: dict[str, Converter] = {"Einsum": _einsum}

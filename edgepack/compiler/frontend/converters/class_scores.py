"""What classifiers and regressors of ai.onnx.ml make of their scores: transforms, and the label.

Where the specification is silent, and where it differs from what models have always been given,
these do as ONNX Runtime does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from edgepack.compiler.frontend.converters.formulas import elementwise
from edgepack.compiler.frontend.converters.values import bound, cast, reshaped
from edgepack.compiler.frontend.node import Node, constant, dtype_of, shape_of

TRANSFORMS = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")
"""Values of post_transform; TreeEnsemble has their numbers."""
_NEGLIGIBLE = 1e-7
"""SOFTMAX_ZERO takes what is no larger for zero."""
_WINITZKI = 0.147
"""The constant of Winitzki's inverse error function ("A handy approximation for the error function
and its inverse", 2008), which ONNX Runtime uses, with a circle of 3.14159."""


def feature_rows(node: Node, dtype: str, index: int = 0) -> Any:
    """An input as [rows, features] of ``dtype``; a vector is one row."""
    shape = node.shape(index)
    if len(shape) not in (1, 2) or 0 in shape:
        raise node.unsupported(f"its input has the shape {list(shape)}, not [rows, features]")
    rows = reshaped(node.inputs[index], (1, *shape) if len(shape) == 1 else shape)
    return bound(node, cast(rows, dtype))


def post_transform(node: Node) -> str:
    """The attribute of this name, by its name. Raises ModelError for one that is not known."""
    name = node.attributes.get("post_transform", "NONE")
    if name in (1, 2):
        raise node.unsupported(
            f"its post_transform is {name}, which ONNX and ONNX Runtime understand differently",
            "leave it out and put a Softmax or a Sigmoid behind the node",
        )
    name = TRANSFORMS[name] if name in range(len(TRANSFORMS)) else name
    if name not in TRANSFORMS:
        raise node.unsupported(f"its post_transform is {name!r}")
    return str(name)


def transformed(node: Node, scores: Any, transform: str) -> Any:
    """Float32 scores [rows, n] after a transform.

    Of one column LOGISTIC, SOFTMAX and SOFTMAX_ZERO change nothing, as in ONNX Runtime.
    """
    from tvm import relax

    if transform == "NONE":
        return scores
    if transform == "PROBIT":
        return elementwise(node, probit, scores)
    if shape_of(scores)[1] == 1:
        return scores
    if transform == "LOGISTIC":
        return bound(node, relax.op.sigmoid(scores))
    if transform == "SOFTMAX":
        return bound(node, relax.op.nn.softmax(scores, axis=-1))
    return _softmax_zero(node, scores)


def probit(value: Any) -> Any:
    """The inverse of the normal distribution's cumulative function."""
    from tvm import tirx

    def const(number: float) -> Any:
        return tirx.const(number, "float32")

    x = const(2) * value - const(1)
    log = tirx.log((const(1) - x) * (const(1) + x))
    half = const(2 / (3.14159 * _WINITZKI)) + const(0.5) * log
    root = tirx.sqrt(tirx.sqrt(half * half - log * const(1 / _WINITZKI)) - half)
    return const(2**0.5) * tirx.Select(x < const(0), -root, root)


def _softmax_zero(node: Node, scores: Any) -> Any:
    """Softmax over what is not zero; zeros stay."""
    from tvm import relax, tirx

    largest = node.emit(relax.op.max(scores, axis=1, keepdims=True))

    def weight(score: Any, most: Any) -> Any:
        counts = tirx.abs(score) > tirx.const(_NEGLIGIBLE, "float32")
        return tirx.Select(counts, tirx.exp(score - most), score * tirx.exp(-most))

    def counted(score: Any, weight: Any) -> Any:
        counts = tirx.abs(score) > tirx.const(_NEGLIGIBLE, "float32")
        return tirx.Select(counts, weight, tirx.const(0, "float32"))

    weights = elementwise(node, weight, scores, largest)
    total = relax.op.sum(elementwise(node, counted, scores, weights), axis=1, keepdims=True)
    return bound(node, relax.op.divide(weights, total))


def class_labels(node: Node, name: str) -> list[int]:
    """The integer labels of a classifier. Raises ModelError where it has none."""
    labels = [int(label) for label in node.attributes.get(name, ())]
    if not labels:
        raise node.unsupported("its class labels are strings", "use integers for class labels")
    return labels


def first_largest(node: Node, scores: Any, scored: Any = None) -> Any:
    """The column of each row's first largest score, int64 [rows]; 0 where there is none, as of NaN.

    ``scored`` [rows, columns], where given, is 0 for scores that do not take part.
    """
    from tvm import te, tirx

    rows, columns = shape_of(scores)
    lowest = tirx.min_value(dtype_of(scores))
    among = [scores] if scored is None else [scores, scored]

    def taking_part(row: Any, column: Any, flags: Sequence[Any]) -> Any:
        return flags[0](row, column) != 0 if flags else tirx.const(True, "bool")

    def most(values: Any, *flags: Any) -> Any:
        column = te.reduce_axis((0, columns), "column")

        def element(row: Any) -> Any:
            value = values(row, column)
            return te.max(tirx.Select(taking_part(row, column, flags), value, lowest), axis=column)

        return te.compute((rows,), element, name="most")

    def first(values: Any, largest: Any, *flags: Any) -> Any:
        column = te.reduce_axis((0, columns), "column")

        def element(row: Any) -> Any:
            equal = values(row, column) == largest(row)
            found = tirx.Select(tirx.And(taking_part(row, column, flags), equal), column, columns)
            return te.min(tirx.Cast("int64", found), axis=column)

        return te.compute((rows,), element, name="first")

    largest = node.compute(most, *among)
    found = node.compute(first, scores, largest, *among[1:])
    none, zero = tirx.const(columns, "int64"), tirx.const(0, "int64")
    return elementwise(node, lambda place: tirx.Select(place == none, zero, place), found)


def labelled(node: Node, places: Any, labels: Sequence[int]) -> Any:
    """The labels at int64 ``places`` [rows]; places outside count as the nearest."""
    from tvm import te, tirx

    last = len(labels) - 1
    if list(labels) == list(range(len(labels))):
        return places

    def lookup(table: Any, place: Any) -> Any:
        lowest, highest = tirx.const(0, "int64"), tirx.const(last, "int64")
        return te.compute(
            place.shape, lambda row: table(tirx.min(tirx.max(place(row), lowest), highest))
        )

    return node.compute(lookup, constant(list(labels), "int64"), places)


def sign_labels(node: Node, scores: Any, labels: Sequence[int]) -> Any:
    """The second label where a score [rows, 1] is above zero, else the first; int64 [rows]."""
    from tvm import tirx

    negative, positive = (tirx.const(label, "int64") for label in labels)

    def chosen(score: Any) -> Any:
        return tirx.Select(score > tirx.const(0, score.ty.dtype), positive, negative)

    column = elementwise(node, chosen, scores)
    return bound(node, reshaped(column, (shape_of(scores)[0],)))


def pair(node: Node, score: Any, element: Callable[[Any], tuple[Any, Any]]) -> Any:
    """Two columns [rows, 2] out of the only one of ``score`` [rows, 1]."""
    from tvm import te, tirx

    rows = shape_of(score)[0]

    def columns(values: Any) -> Any:
        def at(row: Any, column: Any) -> Any:
            first, second = element(values(row, 0))
            return tirx.Select(column == 0, first, second)

        return te.compute((rows, 2), at)

    return node.compute(columns, score)


def complement(score: Any) -> tuple[Any, Any]:
    """The pair of a probability."""
    from tvm import tirx

    return tirx.const(1, score.ty.dtype) - score, score


def opposite(score: Any) -> tuple[Any, Any]:
    """The pair of a signed score."""
    return -score, score


def logistic(score: Any) -> tuple[Any, Any]:
    """The pair of a logit."""
    from tvm import tirx

    return tirx.sigmoid(-score), tirx.sigmoid(score)

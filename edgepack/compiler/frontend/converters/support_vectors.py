"""Support vector machines of ai.onnx.ml: SVMClassifier and SVMRegressor.

A classifier of k classes is k (k - 1) / 2 classifiers of two, as in LIBSVM: the score of classes i
and j sums the kernels with the vectors of both, and the class that wins most pairs is the answer.
Probabilities come from pairwise ones (pairwise_coupling).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgepack.compiler.frontend.converters.class_scores import (
    class_labels,
    complement,
    feature_rows,
    first_largest,
    labelled,
    logistic,
    opposite,
    pair,
    post_transform,
    transformed,
)
from edgepack.compiler.frontend.converters.formulas import elementwise
from edgepack.compiler.frontend.converters.linear_models import affine, float_attribute
from edgepack.compiler.frontend.converters.pairwise_coupling import pair_numbers, probabilities
from edgepack.compiler.frontend.node import Converter, Node, constant, shape_of
from edgepack.errors import ModelError

if TYPE_CHECKING:
    import numpy as np

DOMAIN = "ai.onnx.ml"

_KERNELS = ("LINEAR", "POLY", "RBF", "SIGMOID")
_LARGEST_DEGREE = 16
"""Integer powers up to this are products."""


def _regressor(node: Node) -> Any:
    from tvm import relax, tirx

    rows = feature_rows(node, "float32")
    supports = int(node.attributes.get("n_supports", 0))
    offset = float_attribute(node, "rho")[:1]
    if supports > 0:
        coefficients = float_attribute(node, "coefficients")
        if len(coefficients) != supports:
            raise _inconsistent(node, "coefficients")
        kernels = _kernels(node, rows, supports)
        scores = node.emit(relax.op.matmul(kernels, constant(coefficients.reshape(-1, 1))))
        if len(offset):
            scores = node.emit(relax.op.add(scores, constant(offset.reshape(1, 1))))
    else:
        scores = affine(node, rows, 1, offset)
    if not node.attributes.get("one_class", 0):
        return scores

    def side(score: Any) -> Any:
        one = tirx.const(1, "float32")
        return tirx.Select(score > tirx.const(0, "float32"), one, -one)

    return elementwise(node, side, scores)


def _classifier(node: Node) -> list[Any]:
    labels = class_labels(node, "classlabels_ints")
    per_class = [int(count) for count in node.attributes.get("vectors_per_class", ())]
    if sum(per_class) == 0:
        return _linear(node, labels)
    machine = _Machine.read(node, labels, per_class)
    scores = _pair_scores(node, machine)
    place = first_largest(node, _votes(node, scores, len(labels)))
    label = labelled(node, place, labels)
    transform = post_transform(node)
    if machine.chances is not None:
        found = probabilities(node, scores, machine.chances, len(labels))
        return [label, transformed(node, found, transform)]
    if len(labels) > 2:
        return [label, transformed(node, scores, transform)]
    if transform == "PROBIT":
        raise node.unsupported("its post_transform is PROBIT of one score for two classes")
    pairs = {"NONE": opposite, "LOGISTIC": logistic}
    return [label, pair(node, scores, pairs.get(transform, complement))]


def _linear(node: Node, labels: list[int]) -> list[Any]:
    """Without support vectors: a score for each class, as of LIBLINEAR."""
    from tvm import te, tirx

    rows = feature_rows(node, "float32")
    scores = affine(node, rows, len(labels), float_attribute(node, "rho")[:1])
    place = first_largest(node, scores)
    if len(labels) == 2 and not len(float_attribute(node, "prob_a")):
        positive = bool((float_attribute(node, "coefficients") >= 0).all())

        def second(values: Any, found: Any) -> Any:
            def at(row: Any) -> Any:
                most = tirx.max(values(row, 0), values(row, 1))
                zero, half = tirx.const(0, "float32"), tirx.const(0.5, "float32")
                decided = most >= half if positive else most > zero
                return tirx.Select(decided, tirx.const(1, "int64"), found(row))

            return te.compute(found.shape, at)

        place = node.compute(second, scores, place)
    return [labelled(node, place, labels), transformed(node, scores, post_transform(node))]


@dataclass(frozen=True, kw_only=True)
class _Machine:
    """The arrays of a classifier with support vectors."""

    per_class: list[int]
    coefficients: np.ndarray
    """[classes - 1, vectors]: row r has what a vector counts against the other class number r."""
    offsets: np.ndarray
    """[pairs]."""
    chances: tuple[np.ndarray, np.ndarray] | None
    """Slope and offset [pairs] of the probability that the first class of a pair wins."""

    @staticmethod
    def read(node: Node, labels: list[int], per_class: list[int]) -> _Machine:
        """Raises ModelError where arrays are missing or of the wrong length."""
        classes, vectors = len(labels), sum(per_class)
        if classes < 2 or len(per_class) != classes or min(per_class) < 0:
            raise _inconsistent(node, "vectors_per_class")
        pairs = classes * (classes - 1) // 2
        arrays = {n: float_attribute(node, n) for n in ("coefficients", "rho", "prob_a", "prob_b")}
        wanted = {"coefficients": (classes - 1) * vectors, "rho": pairs}
        if len(arrays["prob_a"]) or len(arrays["prob_b"]):
            wanted |= {"prob_a": pairs, "prob_b": pairs}
        for name, count in wanted.items():
            if len(arrays[name]) < count:
                raise _inconsistent(node, name)
            arrays[name] = arrays[name][:count]
        return _Machine(
            per_class=per_class,
            coefficients=arrays["coefficients"].reshape(classes - 1, vectors),
            offsets=arrays["rho"],
            chances=(arrays["prob_a"], arrays["prob_b"]) if len(arrays["prob_a"]) else None,
        )


def _inconsistent(node: Node, name: str) -> ModelError:
    return ModelError(
        f"{node.label}: its attribute {name} does not fit the others",
        "the model is damaged: export it again",
    )


def _kernels(node: Node, rows: Any, vectors: int) -> Any:
    """The kernel of each row with each support vector, [rows, vectors]."""
    import numpy as np
    from tvm import relax

    kind = node.attributes.get("kernel_type", "LINEAR")
    if kind not in _KERNELS:
        raise node.unsupported(f"its kernel_type is {kind!r}")
    features = shape_of(rows)[1]
    support = float_attribute(node, "support_vectors")
    if len(support) != vectors * features:
        raise _inconsistent(node, "support_vectors")
    gamma, offset, degree = (*node.attributes.get("kernel_params", ()), 0.0, 0.0, 0.0)[:3]
    table = constant(np.ascontiguousarray(support.reshape(vectors, features).T))
    if kind == "RBF":
        return _radial(node, rows, table, gamma)
    products = node.emit(relax.op.matmul(rows, table))
    if kind == "LINEAR":
        return products
    scaled = relax.op.multiply(products, constant(gamma, "float32"))
    moved = node.emit(relax.op.add(scaled, constant(offset, "float32")))
    return node.emit(relax.op.tanh(moved)) if kind == "SIGMOID" else _power(node, moved, degree)


def _radial(node: Node, rows: Any, table: Any, gamma: float) -> Any:
    """exp(-gamma |x - v|²); differences are squared one by one, since expanding loses digits."""
    from tvm import relax, te

    features, vectors = shape_of(table)

    def distances(x: Any, v: Any) -> Any:
        feature = te.reduce_axis((0, features), "feature")

        def element(row: Any, vector: Any) -> Any:
            difference = x(row, feature) - v(feature, vector)
            return te.sum(difference * difference, axis=feature)

        return te.compute((x.shape[0], vectors), element, name="distances")

    squares = node.compute(distances, rows, table)
    return node.emit(relax.op.exp(relax.op.multiply(squares, constant(-gamma, "float32"))))


def _power(node: Node, base: Any, degree: float) -> Any:
    from tvm import relax, tirx

    if degree != int(degree) or not 0 <= degree <= _LARGEST_DEGREE:
        return node.emit(relax.op.power(base, constant(degree, "float32")))

    def product(value: Any) -> Any:
        result = tirx.const(1, "float32")
        for _ in range(int(degree)):
            result = result * value
        return result

    return elementwise(node, product, base)


def _pair_scores(node: Node, machine: _Machine) -> Any:
    """Scores [rows, pairs], pairs (0, 1), (0, 2), … (1, 2), …; above zero the first class wins.

    The vectors of each class are one product with all rows of coefficients, as one batch of matrix
    products: classes with fewer vectors are filled up with zeros.
    """
    import numpy as np
    from tvm import relax, te, tirx

    classes, longest = len(machine.per_class), max(machine.per_class)
    rows = feature_rows(node, "float32")
    kernels = _kernels(node, rows, sum(machine.per_class))
    starts = np.cumsum([0, *machine.per_class[:-1]])
    filled = np.arange(longest) < np.array(machine.per_class)[:, None]
    places = np.where(filled, starts[:, None] + np.arange(longest), 0)
    weights = np.where(filled[..., None], machine.coefficients.T[places], np.float32(0))

    def by_class(values: Any, table: Any, mask: Any) -> Any:
        def at(group: Any, row: Any, number: Any) -> Any:
            value = values(row, table(group, number))
            return tirx.Select(mask(group, number) != 0, value, tirx.const(0, "float32"))

        return te.compute((classes, values.shape[0], longest), at)

    tables = (constant(places, "int32"), constant(filled, "uint8"))
    grouped = node.compute(by_class, kernels, *tables)
    sums = node.emit(relax.op.matmul(grouped, constant(weights)))  # [classes, rows, classes - 1]
    first, second = np.triu_indices(classes, 1)

    def joined(parts: Any, one: Any, other: Any, offset: Any) -> Any:
        def at(row: Any, number: Any) -> Any:
            i, j = one(number), other(number)
            return parts(i, row, j - 1) + parts(j, row, i) + offset(number)

        return te.compute((parts.shape[1], len(first)), at)

    pairs = (constant(first, "int32"), constant(second, "int32"))
    return node.compute(joined, sums, *pairs, constant(machine.offsets))


def _votes(node: Node, scores: Any, classes: int) -> Any:
    """How many pairs each class wins, float32 [rows, classes]."""
    from tvm import te, tirx

    def count(values: Any, table: Any) -> Any:
        rival = te.reduce_axis((0, classes), "rival")

        def element(row: Any, number: Any) -> Any:
            first_wins = values(row, table(number, rival)) > tirx.const(0, "float32")
            wins = tirx.Select(number < rival, first_wins, tirx.Not(first_wins))
            counted = tirx.And(number != rival, wins)
            return te.sum(tirx.Cast("float32", counted), axis=rival)

        return te.compute((values.shape[0], classes), element, name="votes")

    return node.compute(count, scores, constant(pair_numbers(classes)))


CONVERTERS: dict[str, Converter] = {
    "SVMClassifier": _classifier,
    "SVMRegressor": _regressor,
}

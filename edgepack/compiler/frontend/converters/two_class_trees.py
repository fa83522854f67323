"""TreeEnsembleClassifier with two classes, where a model may score one of them, both, or either.

The specification does not say what the scores of a model with one column are. Models are made for
what ONNX Runtime does, and so is this: where class 1 has no vote, the score is of class 1 although it
stands with class 0; probabilities are told from signed scores by whether a weight is negative; and
where a model votes for both classes, its labels are 1 and 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgepack.compiler.frontend.converters.class_scores import (
    complement,
    logistic,
    opposite,
    post_transform,
    transformed,
)
from edgepack.compiler.frontend.converters.formulas import elementwise
from edgepack.compiler.frontend.converters.tree_attributes import Trees, Votes, numbers
from edgepack.compiler.frontend.converters.tree_scores import Scores, scores
from edgepack.compiler.frontend.node import Node, shape_of


def two_classes(node: Node, trees: Trees, labels: list[int], base: list[float]) -> list[Any]:
    """Label and scores."""
    columns = set(node.attributes.get("class_ids", ()))
    if columns == {0}:
        trees = trees.with_nodes(votes=Votes(**{**vars(trees.votes), "targets": 1}))
    ensemble = _TwoClasses(
        base=base,
        one_column=len(columns) == 1,
        probability=bool((numbers(node, "class_weights") >= 0).all()),
    )
    counted = scores(node, trees, "SUM")
    transform = post_transform(node)
    always_both = ensemble.pairs_always(counted)
    if transform == "PROBIT" and not always_both:
        raise node.unsupported("its post_transform is PROBIT of one score for two classes")
    label = _label(node, ensemble, counted, labels)
    both = transformed(node, _computed(node, ensemble.pair, counted), transform)
    if always_both:
        return [label, both]
    single = _computed(node, lambda score: ensemble.expanded(score, transform), counted)
    if shape_of(counted.values)[1] == 1:
        return [label, single]
    return [label, _either(node, counted, both, single)]


@dataclass(frozen=True, kw_only=True)
class _Score:
    """One row: the votes for both classes, and whether there were any; all TIR expressions."""

    first: Any
    second: Any
    has_first: Any
    has_second: Any


@dataclass(frozen=True, kw_only=True)
class _TwoClasses:
    base: list[float]
    one_column: bool
    """Whether all votes are for the same class."""
    probability: bool
    """Whether no weight is negative: a sum above one half then is the second class."""

    def pairs_always(self, counted: Scores) -> bool:
        """Whether every row has two scores."""
        both = shape_of(counted.values)[1] == 2 and counted.scored is None
        return both or len(self.base) == 2

    def pair(self, score: _Score) -> tuple[Any, Any]:
        """Both scores with their base values; 0 for a class without votes, whatever its base value."""
        from tvm import tirx

        dtype = score.first.ty.dtype
        zero = tirx.const(0, dtype)
        first, second = score.first, score.second
        if len(self.base) == 1:
            first = first + tirx.const(self.base[0], dtype)
        elif self.base:
            # ONNX Runtime has the second class opposite the first here, and passes over its own votes.
            second = first + tirx.const(self.base[1], dtype)
            first = tirx.Select(score.has_second, -second, first + tirx.const(self.base[0], dtype))
        return (
            tirx.Select(score.has_first, first, zero),
            tirx.Select(score.has_second, second, zero),
        )

    def is_second(self, score: _Score) -> Any:
        """Whether the second class is the answer."""
        from tvm import tirx

        first, second = self.pair(score)
        limit = tirx.const(0.5 if self.one_column and self.probability else 0, first.ty.dtype)
        return tirx.Select(score.has_second, second, first) > limit

    def expanded(self, score: _Score, transform: str) -> tuple[Any, Any]:
        """Both scores of a row that has votes for the first class alone."""
        from tvm import tirx

        value = self.pair(score)[0]
        if not self.one_column and self.base:
            return value, tirx.const(0, value.ty.dtype)  # ONNX Runtime leaves it as it was
        if transform == "LOGISTIC":
            return logistic(value)
        return complement(value) if self.one_column and self.probability else opposite(value)


def _score(values: Any, flags: tuple[Any, ...], row: Any) -> _Score:
    """A row of te.Tensors [rows, 1 or 2]."""
    from tvm import tirx

    def has(column: int) -> Any:
        if column >= int(values.shape[1]):
            return tirx.const(False, "bool")
        return flags[0](row, column) != 0 if flags else tirx.const(True, "bool")

    second = values(row, 1) if int(values.shape[1]) == 2 else tirx.const(0, values.dtype)
    return _Score(first=values(row, 0), second=second, has_first=has(0), has_second=has(1))


def _operands(counted: Scores) -> list[Any]:
    return [counted.values] if counted.scored is None else [counted.values, counted.scored]


def _computed(node: Node, element: Any, counted: Scores) -> Any:
    """Float32 [rows, 2] of what ``element`` makes of a row."""
    from tvm import te, tirx

    rows = shape_of(counted.values)[0]

    def columns(values: Any, *flags: Any) -> Any:
        def at(row: Any, column: Any) -> Any:
            first, second = element(_score(values, flags, row))
            return tirx.Cast("float32", tirx.Select(column == 0, first, second))

        return te.compute((rows, 2), at)

    return node.compute(columns, *_operands(counted))


def _label(node: Node, ensemble: _TwoClasses, counted: Scores, labels: list[int]) -> Any:
    from tvm import te, tirx

    rows = shape_of(counted.values)[0]
    answers = labels if ensemble.one_column else [0, 1]
    first, second = (tirx.const(label, "int64") for label in answers)

    def column(values: Any, *flags: Any) -> Any:
        def at(row: Any) -> Any:
            return tirx.Select(ensemble.is_second(_score(values, flags, row)), second, first)

        return te.compute((rows,), at)

    return node.compute(column, *_operands(counted))


def _either(node: Node, counted: Scores, both: Any, single: Any) -> Any:
    """``both`` in rows where the second class has votes."""
    from tvm import relax, tirx

    second = relax.op.strided_slice(counted.scored, axes=[1], begin=[1], end=[2])

    def chosen(flag: Any, two: Any, one: Any) -> Any:
        return tirx.Select(flag != tirx.const(0, "uint8"), two, one)

    return elementwise(node, chosen, node.emit(second), both, single)

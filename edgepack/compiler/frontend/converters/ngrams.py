"""TfIdfVectorizer over whole numbers: how often each n-gram of a pool occurs, gaps allowed."""

from __future__ import annotations

from typing import Any

from edgepack.compiler.frontend.converters.values import filled, reshaped
from edgepack.compiler.frontend.node import Converter, Node, constant, shape_of

DOMAIN = ""

Pool = dict[tuple[int, ...], tuple[int, float]]
"""The column of the result and the weight for each n-gram."""


def _tf_idf(node: Node) -> Any:
    import numpy as np
    from tvm import relax

    attributes = node.attributes
    if attributes.get("pool_strings"):
        raise node.unsupported("its pool holds text", "map words to numbers before the model")
    shape, result = node.shape(), node.outputs[0].shape
    rows = node.emit(reshaped(node.inputs[0], shape if len(shape) > 1 else [1, *shape]))
    total = filled([shape_of(rows)[0], result[-1]], 0, "float32")
    for pool in _pools(attributes).values():
        counted = _counted(node, rows, pool, int(attributes["max_skip_count"]))
        if attributes["mode"] == "IDF":
            counted = node.emit(relax.op.minimum(counted, constant(1, "float32")))
        places = np.zeros((len(pool), result[-1]), np.float32)
        for gram, (column, weight) in enumerate(pool.values()):
            places[gram, column] = weight
        spread = node.emit(relax.op.matmul(counted, constant(places)))
        total = node.emit(relax.op.add(total, spread))
    return reshaped(total, result)


def _pools(attributes: dict[str, Any]) -> dict[int, Pool]:
    """By length, those between the shortest and the longest that count."""
    numbers, starts = list(attributes["pool_int64s"]), list(attributes["ngram_counts"])
    columns = list(attributes["ngram_indexes"])
    weights = list(attributes.get("weights") or []) if attributes["mode"] != "TF" else []
    values = iter(zip(columns, weights or [1.0] * len(columns), strict=True))
    found: dict[int, Pool] = {}
    for length, (start, end) in enumerate(zip(starts, [*starts[1:], len(numbers)], strict=True), 1):
        grams = [tuple(numbers[i : i + length]) for i in range(start, end, length)]
        pool = {gram: next(values) for gram in grams}
        if attributes["min_gram_length"] <= length <= attributes["max_gram_length"] and pool:
            found[length] = pool
    return found


def _counted(node: Node, rows: Any, pool: Pool, skips: int) -> Any:
    """[rows, n-grams] float32: at how many places, with how many equal gaps, each one stands."""
    import numpy as np

    grams = np.array(list(pool))
    length, width = grams.shape[1], shape_of(rows)[1]
    gaps = skips + 1 if length > 1 else 1
    dtype = str(rows.ty.dtype)

    def kernel(x: Any, wanted: Any) -> Any:
        from tvm import te, tirx

        start = te.reduce_axis((0, width), "start")
        gap = te.reduce_axis((0, gaps), "gap")

        def element(row: Any, gram: Any) -> Any:
            places = [start + i * (gap + 1) for i in range(length)]
            inside = [place < width for place in places[1:]]
            same = [
                x(row, tirx.min(place, width - 1)) == wanted(gram, i)
                for i, place in enumerate(places)
            ]
            hit = tirx.Select(tirx.all(*inside, *same), 1.0, 0.0)
            return te.sum(tirx.Cast("float32", hit), axis=[start, gap])

        return te.compute((x.shape[0], len(pool)), element)

    return node.compute(kernel, rows, constant(grams, dtype))


CONVERTERS: dict[str, Converter] = {"TfIdfVectorizer": _tf_idf}

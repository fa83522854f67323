"""A matrix product with one-hot rows: an embedding that somebody has spelled without a lookup."""

from __future__ import annotations

from typing import Any

from edgepack.compiler.patterns.graph import Graph, Pattern, dtype_of, shape_of


def _embedding(graph: Graph, call: Any) -> Any:
    """cast(indices == [0 ... k-1]) @ table, with a row of zeros for an index outside the table."""
    import numpy as np
    from tvm import ir, relax

    found = graph.operands(call, "matmul")
    cast = graph.call(found[0], "astype") if found is not None else None
    if found is None or cast is None or not isinstance(found[1], ir.GenericConst):
        return None
    table = found[1].value.numpy()
    if table.ndim != 2 or dtype_of(call) != dtype_of(found[1]) or not np.isfinite(table).all():
        return None
    indices = _one_hot_indices(graph, cast.args[0], len(table))
    if indices is None:
        return None
    dtype = dtype_of(indices)
    end, zero = relax.const(len(table), dtype), relax.const(0, dtype)
    flat = graph.emit(relax.op.reshape(indices, list(shape_of(call) or ())[:-1]))
    below = graph.emit(relax.op.less(flat, zero))
    capped = graph.emit(relax.op.minimum(flat, end))
    inside = graph.emit(relax.op.where(below, end, capped))
    padded = np.concatenate([table, np.zeros_like(table[:1])])
    return relax.op.take(relax.const(padded, dtype_of(call)), inside, axis=0)


def _one_hot_indices(graph: Graph, expression: Any, count: int) -> Any:
    """What is compared with 0 ... count - 1 along a new last axis; None if nothing is."""
    import numpy as np
    from tvm import ir

    shape = shape_of(expression) or ()
    for indices, numbers in graph.both_ways(expression, "equal"):
        if not isinstance(numbers, ir.GenericConst) or shape_of(indices) != (*shape[:-1], 1):
            continue
        codes = numbers.value.numpy()
        if dtype_of(indices) not in ("int32", "int64") or codes.size != count:
            continue
        if shape[-1] == count and np.array_equal(codes.reshape(-1), np.arange(count)):
            return indices
    return None


PATTERNS: tuple[Pattern, ...] = (_embedding,)

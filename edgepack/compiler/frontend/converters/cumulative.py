"""CumSum and CumProd: each element from the one before it, line by line.

The lines lie side by side in memory unless the axis is the last one, so that the loop over them,
which is the innermost, is one of vectors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgepack.compiler.frontend.converters.values import cast, filled, widened
from edgepack.compiler.frontend.node import Converter, Node
from edgepack.compiler.schedules import emit
from edgepack.compiler.schedules.expressions import index

DOMAIN = ""

Combine = Callable[[Any, Any], Any]
"""What an element becomes of the total before it and its own term."""


def _converter(combine: Combine, neutral: int) -> Converter:
    def convert(node: Node) -> Any:
        shape = node.shape()
        axis = int(node.known(1, "axis").item()) % len(shape)
        exclusive, reverse = (bool(node.attributes.get(k, 0)) for k in ("exclusive", "reverse"))
        if shape[axis] == 1:
            return filled(shape, neutral, node.dtype()) if exclusive else node.inputs[0]

        def kernel(x: Any) -> Any:
            start = neutral if exclusive else None
            return _scan(x, axis, combine, start, reverse=reverse)

        data = widened(node, node.inputs[0])
        return cast(node.compute(kernel, data), node.dtype())

    return convert


def _scan(data: Any, axis: int, combine: Combine, start: int | None, *, reverse: bool) -> Any:
    """Along ``axis``; each element without its own term where there is a ``start``."""
    from tvm import te, tirx

    shape = [int(extent) for extent in data.shape]
    outer, length, inner = shape[:axis], shape[axis], shape[axis + 1 :]

    def body(inputs: list[Any], outputs: list[Any]) -> Any:
        (source,), (target,) = inputs, outputs

        def element(line: list[Any], count: Any, lane: list[Any], *, first: bool) -> Any:
            here = length - 1 - count if reverse else count
            before = here + 1 if reverse else here - 1
            if first and start is not None:
                value = tirx.const(start, data.dtype)
            else:
                term = here if start is None else before
                value = tirx.BufferLoad(source, [*line, term, *lane])
            if not first:
                value = combine(tirx.BufferLoad(target, [*line, before, *lane]), value)
            return tirx.BufferStore(target, value, [*line, here, *lane])

        def across(line: list[Any], count: Any, *, first: bool) -> Any:
            return emit.grid(inner, lambda lane: element(line, count, lane, first=first), 1)

        def along(line: list[Any]) -> list[Any]:
            rest = emit.serial(length - 1, lambda count: across(line, count + 1, first=False))
            return [across(line, index(0), first=True), rest]

        return emit.grid(outer, along, 1)

    return te.extern([data.shape], [data], body, dtype=[data.dtype])


def _sum(total: Any, term: Any) -> Any:
    return total + term


def _product(total: Any, term: Any) -> Any:
    return total * term


CONVERTERS: dict[str, Converter] = {
    "CumProd": _converter(_product, 1),
    "CumSum": _converter(_sum, 0),
}

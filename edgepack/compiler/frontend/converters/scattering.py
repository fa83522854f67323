"""Writing at computed places: ScatterElements, ScatterND, TensorScatter.

Places are taken one after the other, so that of two updates of one element the later one stays, and
a sum has both. Indices are brought within the tensor as in gathering.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgepack.compiler.frontend.converters.gathering import within
from edgepack.compiler.frontend.node import Converter, Node
from edgepack.compiler.schedules import emit
from edgepack.compiler.schedules.expressions import index

DOMAIN = ""

Combine = Callable[[Any, Any], Any]
"""What an element becomes, given itself and the update."""


def _combination(node: Node) -> Combine:
    from tvm import tirx

    combinations: dict[str, Combine] = {
        "none": lambda _, update: update,
        "add": lambda old, update: old + update,
        "mul": lambda old, update: old * update,
        "max": tirx.max,
        "min": tirx.min,
    }
    return combinations[str(node.attributes.get("reduction", "none"))]


def _scatter_elements(node: Node) -> Any:
    shape, places = node.shape(0), node.shape(1)
    axis = node.attributes.get("axis", 0) % len(shape)
    combine = _combination(node)

    def target_of(indices: Any, at: list[Any]) -> list[Any]:
        from tvm import tirx

        place = within(tirx.BufferLoad(indices, at), shape[axis])
        return [*at[:axis], place, *at[axis + 1 :]]

    def kernel(data: Any, indices: Any, updates: Any) -> Any:
        def body(inputs: list[Any], outputs: list[Any]) -> Any:
            (result,) = outputs

            def one(at: list[Any]) -> Any:
                return _update(combine, result, target_of(inputs[1], at), inputs[2], at)

            return emit.sequence(_copy(inputs[0], result), emit.grid(places, one, 1))

        return _written([data, indices, updates], body)

    return node.compute(kernel, *node.inputs)


def _scatter_nd(node: Node) -> Any:
    """Rows of ``indices`` are positions in the leading axes; updates have the other axes."""
    shape, places = node.shape(0), node.shape(1)
    *outer, count = places
    combine = _combination(node)

    def kernel(data: Any, indices: Any, updates: Any) -> Any:
        def body(inputs: list[Any], outputs: list[Any]) -> Any:
            (result,) = outputs

            def one(at: list[Any]) -> Any:
                from tvm import tirx

                rows = at[: len(outer)]
                position = [
                    within(tirx.BufferLoad(inputs[1], [*rows, index(axis)]), shape[axis])
                    for axis in range(count)
                ]
                target = [*position, *at[len(outer) :]]
                return _update(combine, result, target, inputs[2], at)

            updated = emit.grid([*outer, *shape[count:]], one, 1)
            return emit.sequence(_copy(inputs[0], result), updated)

        return _written([data, indices, updates], body)

    return node.compute(kernel, *node.inputs)


def _written(tensors: list[Any], body: Any) -> Any:
    """What ``body`` makes of ``tensors``, in the shape and type of the first."""
    from tvm import te

    data = tensors[0]
    return te.extern([data.shape], tensors, body, dtype=[data.dtype])


def _copy(source: Any, target: Any) -> Any:
    from tvm import tirx

    extents = [int(extent) for extent in source.shape]
    return emit.grid(
        extents, lambda at: tirx.BufferStore(target, tirx.BufferLoad(source, at), at), 1
    )


def _update(combine: Combine, result: Any, target: list[Any], updates: Any, at: list[Any]) -> Any:
    from tvm import tirx

    old, update = tirx.BufferLoad(result, target), tirx.BufferLoad(updates, at)
    return tirx.BufferStore(result, combine(old, update), target)


def _tensor_scatter(node: Node) -> Any:
    """A cache with a stretch of new entries, each line's from a place of its own."""
    shape, length = node.shape(0), node.shape(1)
    axis = node.attributes.get("axis", -2) % len(shape)
    size, count = shape[axis], length[axis]
    circular = str(node.attributes.get("mode", "linear")) == "circular"

    def kernel(cache: Any, update: Any, *starts: Any) -> Any:
        from tvm import te, tirx

        def element(*at: Any) -> Any:
            start = starts[0](at[0]) if starts else tirx.const(0, "int64")
            place = tirx.Cast("int64", at[axis])
            if circular:
                distance = tirx.floormod(place - tirx.floormod(start, size), size)
            else:
                last = tirx.const(size - count, "int64")
                distance = place - tirx.max(tirx.min(start, last), tirx.const(0, "int64"))
            inside = tirx.all(distance >= 0, distance < count)
            new = update(*at[:axis], distance, *at[axis + 1 :])
            return tirx.if_then_else(inside, new, cache(*at))

        return te.compute(shape, element)

    return node.compute(kernel, *(x for x in node.inputs if x is not None))


CONVERTERS: dict[str, Converter] = {
    **dict.fromkeys(("Scatter", "ScatterElements"), _scatter_elements),
    "ScatterND": _scatter_nd,
    "TensorScatter": _tensor_scatter,
}

"""BoundedNonZero: the places of what is not zero, in order, up to a bound, and how many there are."""

from __future__ import annotations

from typing import Any

from edgepack.compiler.frontend.converters.heaps import Cell, fill, over, statements, store, when
from edgepack.compiler.frontend.converters.values import cast, reshaped, working_type
from edgepack.compiler.frontend.node import Converter, Node, shape_of
from edgepack.compiler.schedules.expressions import index

DOMAIN = "edgepack"


def _non_zero(node: Node) -> list[Any]:
    from tvm import relax

    dtype = node.dtype()
    data = node.emit(cast(node.inputs[0], "uint8" if dtype == "bool" else working_type(dtype)))
    if not shape_of(data):
        data = node.emit(reshaped(data, [1]))
    found = node.compute(_places, data, int(node.attributes["bound"]))
    return [relax.TupleGetItem(found, i) for i in (0, 1)]


def _places(data: Any, bound: int) -> Any:
    """Places [rank, bound], zero beyond their number, and the number."""
    from tvm import te, tirx

    shape = [int(extent) for extent in data.shape]

    def body(inputs: list[Any], outputs: list[Any]) -> Any:
        places, number = outputs

        def write() -> None:
            fill(places, [len(shape), bound])
            count = Cell(index(0))
            with over(shape) as place:
                value = tirx.BufferLoad(inputs[0], place)
                is_true = tirx.NE(value, tirx.const(0, str(data.dtype)))
                with when(tirx.And(is_true, count.value < bound)):
                    for axis, coordinate in enumerate(place):
                        store(places, [index(axis), count.value], coordinate)
                    count.set(count.value + 1)
            store(number, [], count.value)

        return statements(write)

    return te.extern(
        [(len(shape), bound), ()], [data], body, name="non_zero", dtype=["int64", "int64"]
    )


CONVERTERS: dict[str, Converter] = {"BoundedNonZero": _non_zero}

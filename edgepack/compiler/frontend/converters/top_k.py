"""TopK: the k largest or smallest along an axis, in order; of equal ones those that come first.

One pass over the axis keeps the best so far in a heap whose root is the worst of them, in the outputs
themselves: most elements cost one comparison with the root. NaN counts as worse than any number.
"""

from __future__ import annotations

import math
from typing import Any

from edgepack.compiler.frontend.converters.heaps import (
    Cell,
    RankedHeap,
    ahead,
    over,
    statements,
    when,
)
from edgepack.compiler.frontend.converters.values import cast, working_type
from edgepack.compiler.frontend.node import Converter, Node
from edgepack.compiler.schedules.expressions import index

DOMAIN = ""
_K_IS_AN_INPUT = 10
_SHARED_ELEMENTS = 20_000
"""Lines of fewer elements altogether are not worth sharing among threads."""


def _top_k(node: Node) -> Any:
    from tvm import relax

    shape, dtype = node.shape(), node.dtype()
    axis = node.attributes.get("axis", -1) % len(shape)
    if node.opset < _K_IS_AN_INPUT:
        count = int(node.attributes["k"])
    else:
        count = int(node.known(1, "number of elements").item())
    data = node.emit(cast(node.inputs[0], "uint8" if dtype == "bool" else working_type(dtype)))
    largest = bool(node.attributes.get("largest", 1))
    found = node.compute(_best, data, axis, min(count, shape[axis]), largest)
    values, places = (relax.TupleGetItem(found, i) for i in (0, 1))
    return [cast(node.emit(values), dtype), places]


def _best(data: Any, axis: int, count: int, largest: bool) -> Any:
    """Values and places of the best ``count`` along ``axis``, in order."""
    from tvm import te

    shape = [int(extent) for extent in data.shape]
    wanted = [*shape[:axis], count, *shape[axis + 1 :]]

    def body(inputs: list[Any], outputs: list[Any]) -> Any:
        def write() -> None:
            outer, inner = shape[:axis], shape[axis + 1 :]
            shared = bool(outer) and outer[0] > 1 and math.prod(shape) >= _SHARED_ELEMENTS
            with over(outer, shared=shared) as prefix, over(inner) as suffix:
                values, places = outputs
                heap = RankedHeap(
                    values, places, prefix, suffix, largest=largest, best_on_top=False
                )
                _line(inputs[0], heap, shape[axis], count)

        return statements(write)

    return te.extern([wanted, wanted], [data], body, name="top_k", dtype=[str(data.dtype), "int64"])


def _line(data: Any, heap: RankedHeap, length: int, count: int) -> None:
    """Fill the heap's arrays with the best of one line of elements."""
    from tvm import tirx
    from tvm.script.ir_builder import tirx as T

    size = index(count)
    with T.serial(0, size) as place:
        heap.save(place, [tirx.BufferLoad(data, heap.at(place)), place])
    heap.build(size)
    with T.serial(0, index(length - count)) as step:
        place = step + count
        value = Cell(tirx.BufferLoad(data, heap.at(place)))
        # Of equal elements the one that is there came first, and stays.
        with when(ahead(value.value, heap.load(index(0))[0], largest=heap.largest)):
            heap.sink([value.value, place], index(0), size)
    heap.sort(size)


CONVERTERS: dict[str, Converter] = {"TopK": _top_k}

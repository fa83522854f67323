"""Lookups: Gather, GatherElements, GatherND.

Negative indices count from the end. An index out of range, which ONNX leaves undefined, means the
nearest entry there is: no request reaches other memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgepack.compiler.frontend.converters.slicing import sliced
from edgepack.compiler.frontend.converters.values import reshaped
from edgepack.compiler.frontend.node import Converter, Node, constant, constant_of, dtype_of

if TYPE_CHECKING:
    import numpy as np

DOMAIN = ""


def _gather(node: Node) -> Any:
    from tvm import relax

    data, indices = node.inputs
    shape = node.shape()
    axis = node.attributes.get("axis", 0) % len(shape)
    known = constant_of(indices)
    if known is not None:
        known = nearest(known, shape[axis])
        bounds = _progression(known.reshape(-1))
        if bounds is not None:
            part = sliced(node, data, {axis: bounds})
            return reshaped(part, node.outputs[0].shape)
        indices = constant(known)
    else:
        indices = _from_the_start(node, indices, shape[axis])
    return relax.op.take(data, indices, axis, mode="clip")


def nearest(indices: np.ndarray, extent: int) -> np.ndarray:
    """Known indices within ``extent``, counted from the start."""
    import numpy as np

    found: np.ndarray = np.clip(np.where(indices < 0, indices + extent, indices), 0, extent - 1)
    return found.astype(indices.dtype)


def _progression(indices: np.ndarray) -> tuple[int, int, int] | None:
    """The range that indices walk with a fixed step; None where they do not, or there are none."""
    import numpy as np

    if indices.size == 0:
        return None
    step = int(indices[1] - indices[0]) if indices.size > 1 else 1
    first, last = int(indices[0]), int(indices[-1])
    if step == 0 or not np.array_equal(indices, first + step * np.arange(indices.size)):
        return None
    return first, last + (1 if step > 0 else -1), step


def _from_the_start(node: Node, indices: Any, extent: int) -> Any:
    from tvm import relax

    dtype = dtype_of(indices)
    below = node.emit(relax.op.less(indices, constant(0, dtype)))
    wrapped = node.emit(relax.op.add(indices, constant(extent, dtype)))
    return node.emit(relax.op.where(below, wrapped, indices))


def within(index: Any, extent: int) -> Any:
    """A TIR index, counted from either end, as the nearest place within ``extent``."""
    from tvm import tirx

    dtype = index.ty.dtype
    size = tirx.const(extent, dtype)
    place = tirx.Select(index < tirx.const(0, dtype), index + size, index)
    return tirx.max(tirx.min(place, size - tirx.const(1, dtype)), tirx.const(0, dtype))


def _gather_elements(node: Node) -> Any:
    shape = node.shape()
    axis = node.attributes.get("axis", 0) % len(shape)

    def kernel(data: Any, indices: Any) -> Any:
        from tvm import te

        def element(*at: Any) -> Any:
            place = within(indices(*at), shape[axis])
            return data(*at[:axis], place, *at[axis + 1 :])

        return te.compute(indices.shape, element)

    return node.compute(kernel, *node.inputs)


def _gather_nd(node: Node) -> Any:
    """Rows of ``indices`` are positions in the axes after the batch axes."""
    shape, places = node.shape(0), node.shape(1)
    batch, count = node.attributes.get("batch_dims", 0), node.shape(1)[-1]
    outer = len(places) - 1

    def kernel(data: Any, indices: Any) -> Any:
        from tvm import te

        def element(*at: Any) -> Any:
            position = [
                within(indices(*at[:outer], coordinate), shape[batch + coordinate])
                for coordinate in range(count)
            ]
            return data(*at[:batch], *position, *at[outer:])

        return te.compute(node.outputs[0].shape, element)

    return node.compute(kernel, *node.inputs)


CONVERTERS: dict[str, Converter] = {
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
}

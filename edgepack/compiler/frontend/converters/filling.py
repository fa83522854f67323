"""Tensors made of next to nothing: constants, sequences of numbers, diagonals, triangles, one-hot rows."""

from __future__ import annotations

from typing import Any

from edgepack.compiler.frontend.converters.values import along, cast, reshaped
from edgepack.compiler.frontend.node import Converter, Node, constant, constant_of, dtype_of

DOMAIN = ""


def _constant_of_shape(node: Node) -> Any:
    import numpy as np

    value = node.attributes.get("value", np.zeros(1, np.float32))
    return constant(np.full(node.outputs[0].shape, value.reshape(())), str(value.dtype))


def _range(node: Node) -> Any:
    """As ONNX defines it: start + i * delta."""
    import numpy as np

    start, delta = (
        node.known(index, name).reshape(()) for index, name in ((0, "start"), (2, "delta"))
    )
    (count,) = node.outputs[0].shape
    return constant((start + np.arange(count, dtype=start.dtype) * delta).astype(start.dtype))


def _eye_like(node: Node) -> Any:
    import numpy as np

    rows, columns = node.shape()
    diagonal = np.eye(rows, columns, int(node.attributes.get("k", 0)))
    return constant(diagonal, node.outputs[0].dtype)


def _trilu(node: Node) -> Any:
    """What is on the wanted side of the k-th diagonal, zeros elsewhere."""
    upper = bool(node.attributes.get("upper", 1))
    known = node.constant(1)
    given = [node.emit(reshaped(node.inputs[1], []))] if node.has(1) and known is None else []

    def kernel(data: Any, *shifts: Any) -> Any:
        from tvm import te, tirx

        def element(*at: Any) -> Any:
            shift = shifts[0]() if shifts else 0 if known is None else int(known.item())
            distance = tirx.Cast("int64", at[-1]) - tirx.Cast("int64", at[-2])
            kept = distance >= shift if upper else distance <= shift
            return tirx.Select(kept, data(*at), tirx.const(0, data.dtype))

        return te.compute(data.shape, element)

    return node.compute(kernel, node.inputs[0], *given)


def _one_hot(node: Node) -> Any:
    """``values`` are off and on; an index beyond the depth, of either sign, is on nowhere."""
    import numpy as np
    from tvm import relax

    rank = len(node.shape()) + 1
    axis = node.attributes.get("axis", -1) % rank
    shape = node.outputs[0].shape
    depth = shape[axis]
    indices = node.inputs[0]
    if not dtype_of(indices).startswith("int"):
        indices = node.emit(cast(indices, "int64"))
    dtype = dtype_of(indices)
    if dtype not in ("int32", "int64"):
        dtype = "int32" if depth < 1 << 31 else "int64"
        indices = node.emit(cast(indices, dtype))
    below = node.emit(relax.op.less(indices, constant(0, dtype)))
    wrapped = node.emit(relax.op.add(indices, constant(depth, dtype)))
    indices = node.emit(relax.op.where(below, wrapped, indices))
    spread = [*shape[:axis], 1, *shape[axis + 1 :]]
    indices = node.emit(reshaped(indices, spread))
    places = along(constant(np.arange(depth), dtype), axis, rank)
    chosen = node.emit(relax.op.equal(indices, places))
    return _off_or_on(node, chosen)


def _off_or_on(node: Node, chosen: Any) -> Any:
    from tvm import relax

    dtype = node.outputs[0].dtype
    values = constant_of(node.inputs[2])
    if values is not None and values.tolist() == [0, 1]:
        return cast(chosen, dtype)
    if values is not None:
        off, on = (constant(value, dtype) for value in values)
    else:
        parts = node.emit(relax.op.split(node.inputs[2], 2, 0))
        off, on = (node.emit(relax.TupleGetItem(parts, index)) for index in range(2))
    return relax.op.where(chosen, on, off)


CONVERTERS: dict[str, Converter] = {
    "ConstantOfShape": _constant_of_shape,
    "EyeLike": _eye_like,
    "OneHot": _one_hot,
    "Range": _range,
    "Trilu": _trilu,
}

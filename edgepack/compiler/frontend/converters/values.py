"""What converters of several families write with Relax: casts, constants, vectors along an axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from edgepack.compiler.frontend.node import Node, constant, constant_of, dtype_of, shape_of

if TYPE_CHECKING:
    import numpy as np

_HALF = ("float16", "bfloat16")


def working_type(dtype: str) -> str:
    """The type to compute in: float32 for the 16-bit types, whose sums lose too much."""
    return "float32" if dtype in _HALF else dtype


def cast(expression: Any, dtype: str) -> Any:
    """``expression`` as ``dtype``; itself where it is of that type."""
    from tvm import relax

    return expression if dtype_of(expression) == dtype else relax.op.astype(expression, dtype)


def bound(node: Node, expression: Any) -> Any:
    """A variable for what is computed; a variable or a constant as it is."""
    from tvm import ir

    return node.emit(expression) if isinstance(expression, ir.Call) else expression


def widened(node: Node, expression: Any) -> Any:
    """``expression`` in the type to compute in."""
    return bound(node, cast(expression, working_type(dtype_of(expression))))


def reshaped(expression: Any, shape: Sequence[int]) -> Any:
    """``expression`` seen as ``shape``; a constant becomes another constant."""
    from tvm import relax

    if shape_of(expression) == tuple(shape):
        return expression
    value = constant_of(expression)
    if value is not None:
        return constant(value.reshape(shape), dtype_of(expression))
    return relax.op.reshape(expression, list(shape))


def along(expression: Any, axis: int, rank: int) -> Any:
    """A vector as a tensor of ``rank`` axes that has its elements along ``axis``."""
    shape = [1] * rank
    shape[axis] = shape_of(expression)[0]
    return reshaped(expression, shape)


_MOST_PARTS = 64
"""Of one concatenation: each is a condition within the one before, and what reads them goes as deep."""


def concatenated(node: Node, parts: Sequence[Any], axis: int) -> Any:
    """``parts`` one behind the other along ``axis``; many of them are joined in groups first."""
    from tvm import relax

    while len(parts) > _MOST_PARTS:
        groups = [parts[first : first + _MOST_PARTS] for first in range(0, len(parts), _MOST_PARTS)]
        parts = [node.emit(relax.op.concat(list(group), axis)) for group in groups]
    return parts[0] if len(parts) == 1 else relax.op.concat(list(parts), axis)


def filled(shape: Sequence[int], value: float, dtype: str) -> Any:
    """A constant tensor of one value."""
    import numpy as np

    return constant(np.full(shape, value), dtype)


def constants_of(expressions: Sequence[Any]) -> list[np.ndarray] | None:
    """The values of expressions that are all constants; None where one is not."""
    values = [constant_of(expression) for expression in expressions]
    return None if any(value is None for value in values) else [v for v in values if v is not None]


def as_images(node: Node, volume: Any) -> Any:
    """Volumes [N, C, D, H, W] as N * D images [N * D, C, H, W]."""
    from tvm import relax

    batch, channels, depth, *extents = shape_of(volume)
    planes = node.emit(relax.op.permute_dims(volume, [0, 2, 1, 3, 4]))
    return node.emit(relax.op.reshape(planes, [batch * depth, channels, *extents]))


def as_volume(node: Node, images: Any, batch: int) -> Any:
    """What as_images() was given, of ``batch`` volumes."""
    from tvm import relax

    count, channels, *extents = shape_of(images)
    shape = [batch, count // batch, channels, *extents]
    return relax.op.permute_dims(node.emit(relax.op.reshape(images, shape)), [0, 2, 1, 3, 4])

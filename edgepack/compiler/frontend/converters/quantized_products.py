"""Matrix products and convolutions of integers: exact sums, as of int32, and scaled only at the end.

Products of 8 bits add up exactly in float32 as long as no sum of theirs can reach 2^24, in any
order. So a matrix product is one of float32, or, where its depth is too large for that, a sum of a few.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from edgepack.compiler.frontend.converters.convolution import convolved
from edgepack.compiler.frontend.converters.quantized import difference, saturated
from edgepack.compiler.frontend.converters.values import (
    along,
    bound,
    cast,
    constants_of,
    reshaped,
)
from edgepack.compiler.frontend.converters.windows import windows_of
from edgepack.compiler.frontend.node import (
    Converter,
    Node,
    constant,
    constant_of,
    dtype_of,
    shape_of,
)

DOMAIN = ""

_EXACT = 1 << 24
"""Every integer of a smaller magnitude is a float32."""


def _matmul_integer(node: Node) -> Any:
    return _product(node, (0, 2), (1, 3))


def _product(node: Node, left: tuple[int, int], right: tuple[int, int]) -> Any:
    """The int32 product of two inputs, given by their indices and those of their zero points."""
    from tvm import relax

    points = _zero_point(node, left, -2), _zero_point(node, right, -1)
    rows, columns = (
        difference(node, node.inputs[index], point, "float32")
        for (index, _), point in zip((left, right), points, strict=True)
    )
    depth = shape_of(rows)[-1]
    reach = _reach(node.dtype(left[0]), points[0])
    steps = _steps(columns, reach, _reach(node.dtype(right[0]), points[1]), depth)
    total = None
    for first, stop in pairwise(steps):
        parts = _slice(node, rows, -1, first, stop), _slice(node, columns, -2, first, stop)
        product = node.emit(relax.op.matmul(*parts))
        exact = node.emit(relax.op.astype(product, "int32"))
        total = exact if total is None else node.emit(relax.op.add(total, exact))
    return total


def _reach(dtype: str, zero_point: Any) -> int:
    """The largest magnitude of an integer of 8 bits less its zero point."""
    import numpy as np

    ends = np.iinfo(dtype)
    value = constant_of(zero_point) if zero_point is not None else np.zeros(1)
    if value is None:
        return int(ends.max - ends.min)
    return max(int(value.max()) - int(ends.min), int(ends.max) - int(value.min()))


def _steps(columns: Any, reach: int, other: int, depth: int) -> list[int]:
    """Where to cut the depth so that no sum over a part reaches 2^24; its ends included."""
    import numpy as np

    value = constant_of(columns)
    if value is None or value.ndim < 2:
        part = max(1, (_EXACT - 1) // (reach * other))
        return [*range(0, depth, part), depth]
    sums = np.abs(value.astype(np.int64)).cumsum(axis=-2).reshape(-1, depth, value.shape[-1])
    before = np.pad(sums, [(0, 0), (1, 0), (0, 0)])
    steps = [0]
    while steps[-1] < depth:
        largest = (before[:, steps[-1] :] - before[:, steps[-1], None]).max(axis=(0, 2))
        fitting = int(np.searchsorted(largest * reach, _EXACT)) - 1
        steps.append(steps[-1] + max(1, fitting))
    return steps


def _slice(node: Node, operand: Any, axis: int, first: int, stop: int) -> Any:
    """A part of an axis; of a vector, its only one."""
    from tvm import relax

    shape = shape_of(operand)
    axis = max(len(shape) + axis, 0)
    if (first, stop) == (0, shape[axis]):
        return operand
    value = constant_of(operand)
    if value is not None:
        return constant(value.take(range(first, stop), axis), dtype_of(operand))
    return node.emit(relax.op.strided_slice(operand, [axis], [first], [stop]))


def _zero_point(node: Node, indices: tuple[int, int], axis: int) -> Any:
    """A zero point, one for each place of ``axis`` of the data or for all; None where it is 0."""
    data, index = indices
    return _along_data(node, node.inputs[index], data, axis) if node.has(index) else None


def _along_data(node: Node, parameter: Any, data: int, axis: int) -> Any:
    """A parameter of an input, as it broadcasts to it: a vector lies along ``axis``."""
    extents, rank = shape_of(parameter), len(node.shape(data))
    if math.prod(extents) == 1:
        return bound(node, reshaped(parameter, []))
    if len(extents) == 1 and rank > 1:
        return bound(node, along(parameter, axis % rank, rank))
    return parameter


def _conv_integer(node: Node) -> Any:
    return _convolution(node, (0, 2), (1, 3))


def _convolution(node: Node, data: tuple[int, int], kernel: tuple[int, int]) -> Any:
    """The int32 convolution; padding stands for zero, as the zero point does."""
    windows = windows_of(node, node.shape(kernel[0])[2:])
    image, weight = (
        difference(node, node.inputs[operand[0]], _zero_point(node, operand, axis), "int32")
        for operand, axis in ((data, 1), (kernel, 0))
    )
    return bound(node, convolved(node, image, weight, windows))


def _qlinear_matmul(node: Node) -> Any:
    sums = _product(node, (0, 2), (3, 5))
    scales = [
        _along_data(node, node.inputs[1], 0, -2),
        _along_data(node, node.inputs[4], 3, -1),
        _along_data(node, node.inputs[6], 0, -2),
    ]
    zero_point = _along_data(node, node.inputs[7], 0, -2)
    return _requantized(node, sums, scales, zero_point)


def _qlinear_conv(node: Node) -> Any:
    from tvm import relax

    sums, rank = _convolution(node, (0, 2), (3, 5)), len(node.shape())
    if node.has(8):
        sums = node.emit(relax.op.add(sums, bound(node, along(node.inputs[8], 1, rank))))
    scales = [_along_data(node, node.inputs[index], 0, 1) for index in (1, 4, 6)]
    return _requantized(node, sums, scales, bound(node, reshaped(node.inputs[7], [])))


def _requantized(node: Node, sums: Any, scales: Sequence[Any], zero_point: Any) -> Any:
    """Sums times the scales of both operands over that of the result, as its integers."""
    from tvm import relax

    known = constants_of(scales)
    if known is not None:
        # In the scales' own type, as ONNX Runtime does: the factor is rounded twice.
        factor = constant(known[0] * known[1] / known[2], "float32")
    else:
        product = node.emit(relax.op.multiply(*scales[:2]))
        factor = bound(node, cast(node.emit(relax.op.divide(product, scales[2])), "float32"))
    scaled = node.emit(relax.op.multiply(node.emit(relax.op.astype(sums, "float32")), factor))
    return saturated(node, scaled, zero_point, node.outputs[0].dtype)


CONVERTERS: dict[str, Converter] = {
    "ConvInteger": _conv_integer,
    "MatMulInteger": _matmul_integer,
    "QLinearConv": _qlinear_conv,
    "QLinearMatMul": _qlinear_matmul,
}

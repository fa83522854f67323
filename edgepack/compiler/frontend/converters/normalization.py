"""Normalisation by the mean and variance of the data itself: layer, RMS, group, instance, and Lp norms.

Variances are means of squared differences: the mean of squares less the squared mean loses all its
digits where values are far from zero. 16-bit types are normalised in float32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from edgepack.compiler.frontend.converters.values import (
    along,
    bound,
    cast,
    filled,
    reshaped,
    widened,
)
from edgepack.compiler.frontend.node import Converter, Node, constant, dtype_of, shape_of

DOMAIN = ""

_EPSILON = 1e-5


def _layer_norm(node: Node) -> list[Any]:
    from tvm import relax

    shape, dtype = node.shape(), node.dtype()
    axes = _last_axes(node)
    extents = [shape[axis] for axis in axes]
    epsilon = float(node.attributes.get("epsilon", _EPSILON))
    scale, offset = (_parameter(node, index, extents) for index in (1, 2))
    spread = scale is None or (offset is None and node.has(2))
    if dtype == "float64":  # TVM's lowering knows no such
        result = _in_double_precision(node, axes, epsilon)
    else:
        parameters = [None, None] if spread else [scale, offset]
        whole = [
            filled(extents, value, dtype) if operand is None else operand
            for operand, value in zip(parameters, (1, 0), strict=True)
        ]
        result = node.emit(relax.op.nn.layer_norm(node.inputs[0], *whole, axes, epsilon))
        result = _scaled(node, result) if spread else result
    wanted = any(output.name for output in node.outputs[1:])
    return [result, *(_statistics(node, axes, epsilon) if wanted else [])]


def _scaled(node: Node, result: Any) -> Any:
    """Times the scale, plus the offset, as they spread over the data."""
    from tvm import relax

    scaled = node.emit(relax.op.multiply(result, node.inputs[1]))
    return relax.op.add(scaled, node.inputs[2]) if node.has(2) else scaled


def _in_double_precision(node: Node, axes: list[int], epsilon: float) -> Any:
    from tvm import relax

    mean, inverse = _mean_and_inverse(node, node.inputs[0], axes, epsilon)
    centred = node.emit(relax.op.subtract(node.inputs[0], mean))
    # The scale first: the rest alone would be taken for what TVM's lowering knows.
    factor = node.emit(relax.op.multiply(inverse, node.inputs[1]))
    result = node.emit(relax.op.multiply(centred, factor))
    return relax.op.add(result, node.inputs[2]) if node.has(2) else result


def _statistics(node: Node, axes: list[int], epsilon: float) -> list[Any]:
    """The mean and the inverse of the standard deviation, in the types of the outputs."""
    found = _mean_and_inverse(node, widened(node, node.inputs[0]), axes, epsilon)
    return [
        cast(value, output.dtype) if output.name else value
        for value, output in zip(found, node.outputs[1:3], strict=False)
    ]


def _mean_and_inverse(node: Node, data: Any, axes: list[int], epsilon: float) -> tuple[Any, Any]:
    from tvm import relax

    mean, centred = _centred(node, data, axes)
    variance = _mean_square(node, centred, axes)
    shifted = node.emit(relax.op.add(variance, constant(epsilon, dtype_of(data))))
    return mean, node.emit(relax.op.rsqrt(shifted))


def _rms_norm(node: Node) -> Any:
    from tvm import relax

    shape, axes = node.shape(), _last_axes(node)
    extents = [shape[axis] for axis in axes]
    epsilon = float(node.attributes.get("epsilon", _EPSILON))
    result_type = node.outputs[0].dtype
    scale = _parameter(node, 1, extents)
    data = node.inputs[0]
    # Its lowering needs an axis that is not normalised, and one type for both operands.
    whole = axes[0] == 0
    if whole:
        data, axes = bound(node, reshaped(data, [1, *shape])), [axis + 1 for axis in axes]
    weight = scale if dtype_of(node.inputs[1]) == node.dtype() else None
    if weight is None:
        weight = filled(extents, 1, node.dtype())
    result = node.emit(relax.op.nn.rms_norm(data, weight, axes, epsilon))
    if whole:
        result = bound(node, reshaped(result, shape))
    if scale is None or result_type != node.dtype():
        result = relax.op.multiply(bound(node, cast(result, result_type)), node.inputs[1])
    return result


def _last_axes(node: Node) -> list[int]:
    rank = len(node.shape())
    return list(range(node.attributes.get("axis", -1) % rank, rank))


def _parameter(node: Node, index: int, extents: Sequence[int]) -> Any:
    """A scale or an offset in the shape of the normalised axes; None where it has another."""
    if not node.has(index):
        return None
    shape = list(node.shape(index))
    leading = len(shape) - len(extents)
    if leading < 0 or math.prod(shape[:leading]) != 1 or shape[leading:] != list(extents):
        return None
    return bound(node, reshaped(node.inputs[index], extents))


def _centred(node: Node, data: Any, axes: Sequence[int]) -> tuple[Any, Any]:
    from tvm import relax

    mean = _mean(node, data, axes)
    return mean, node.emit(relax.op.subtract(data, mean))


def _mean(node: Node, data: Any, axes: Sequence[int]) -> Any:
    """A sum and a division: unlike Relax's mean, what comes before it can be fused with the sum."""
    from tvm import relax

    count = math.prod(shape_of(data)[axis] for axis in axes)
    if count == 1:
        return data
    total = node.emit(relax.op.sum(data, list(axes), keepdims=True))
    return node.emit(relax.op.divide(total, constant(count, dtype_of(data))))


def _mean_square(node: Node, data: Any, axes: Sequence[int]) -> Any:
    from tvm import relax

    return _mean(node, node.emit(relax.op.multiply(data, data)), axes)


def _instance_norm(node: Node) -> Any:
    whole = _before_grouping(node)
    if whole is None:
        return _normalised_channels(node, node.inputs[0], node.shape()[1])
    return reshaped(bound(node, _normalised_channels(node, whole, node.shape()[1])), node.shape())


def _before_grouping(node: Node) -> Any:
    """The images [N, C, ...] whose channels were put together to [N, groups, elements], or None.

    It is how PyTorch spells group normalisation up to opset 17. The images' own shape lets them
    lie in memory with channels last.
    """
    from tvm import ir

    data, shape = node.inputs[0], node.shape()
    if len(shape) != 3 or not isinstance(data, ir.Var):
        return None
    made = node.builder.lookup_binding(data)
    if not isinstance(made, ir.Call) or made.op != ir.Op.get("relax.reshape"):
        return None
    before = shape_of(made.args[0])
    grouped = len(before) > 3 and before[0] == shape[0] and before[1] % shape[1] == 0
    return made.args[0] if grouped else None


def _group_norm(node: Node) -> Any:
    return _normalised_channels(node, node.inputs[0], int(node.attributes["num_groups"]))


def _normalised_channels(node: Node, images: Any, groups: int) -> Any:
    """Channels normalised in groups, image by image.

    Means are taken over each channel's positions first and then over a group's channels, so that
    the data keeps its shape and may lie in memory with channels last.
    """
    from tvm import relax

    data = widened(node, images)
    dtype, shape = dtype_of(data), shape_of(data)
    axes = list(range(2, len(shape)))
    mean = _over_groups(node, _mean(node, data, axes), groups)
    centred = node.emit(relax.op.subtract(data, mean))
    variance = _over_groups(node, _mean_square(node, centred, axes), groups)
    epsilon = constant(float(node.attributes.get("epsilon", _EPSILON)), dtype)
    inverse = node.emit(relax.op.rsqrt(node.emit(relax.op.add(variance, epsilon))))
    scale, offset = (_of_channels(node, index, shape, dtype) for index in (1, 2))
    # One factor for each channel and image; divided by its size first, the data would be taken for
    # a layer normalisation, which works on ONNX's order of axes alone.
    factor = node.emit(relax.op.multiply(inverse, scale))
    result = relax.op.add(node.emit(relax.op.multiply(centred, factor)), offset)
    return cast(node.emit(result), node.dtype())


def _over_groups(node: Node, means: Any, groups: int) -> Any:
    """Means [N, C, 1...] of channels to means of groups, as many times as they have channels."""
    from tvm import relax

    shape = shape_of(means)
    if groups == shape[1]:
        return means
    each = shape[1] // groups
    parts = bound(node, reshaped(means, [shape[0], groups, each]))
    mean = _mean(node, parts, [2])
    spread = node.emit(relax.op.broadcast_to(mean, [shape[0], groups, each]))
    return bound(node, reshaped(spread, shape))


def _of_channels(node: Node, index: int, shape: Sequence[int], dtype: str) -> Any:
    """A scale or an offset, given for each channel or for each group, along axis 1."""
    from tvm import relax

    vector, value = node.inputs[index], node.constant(index)
    each = shape[1] // node.shape(index)[0]
    if value is not None:
        vector = constant(value.repeat(each), dtype)
    else:
        vector = bound(node, cast(vector, dtype))
        vector = node.emit(relax.op.repeat(vector, each, 0)) if each > 1 else vector
    return bound(node, along(vector, 1, len(shape)))


def _mean_variance_norm(node: Node) -> Any:
    from tvm import relax

    data = widened(node, node.inputs[0])
    dtype, rank = dtype_of(data), len(node.shape())
    axes = sorted(int(axis) % rank for axis in node.attributes.get("axes", (0, 2, 3)))
    _, centred = _centred(node, data, axes)
    deviation = node.emit(relax.op.sqrt(_mean_square(node, centred, axes)))
    # The definition's epsilon; ONNX, MeanVarianceNormalization.
    size = node.emit(relax.op.add(deviation, constant(1e-9, dtype)))
    return cast(node.emit(relax.op.divide(centred, size)), node.dtype())


def _lp_norm(node: Node) -> Any:
    """x over its norm along an axis; 0 where the norm is 0."""
    from tvm import relax

    data = widened(node, node.inputs[0])
    dtype = dtype_of(data)
    axis, power = node.attributes.get("axis", -1), node.attributes.get("p", 2)
    if power not in (1, 2):
        raise node.unsupported(f"p is {power}, not 1 or 2")
    terms = relax.op.abs(data) if power == 1 else relax.op.multiply(data, data)
    size = node.emit(relax.op.sum(node.emit(terms), [axis], keepdims=True))
    if power == 2:
        size = node.emit(relax.op.sqrt(size))
    is_zero = node.emit(relax.op.equal(size, constant(0, dtype)))
    divisor = node.emit(relax.op.where(is_zero, constant(1, dtype), size))
    return cast(node.emit(relax.op.divide(data, divisor)), node.dtype())


def _local_response_norm(node: Node) -> Any:
    """x over a power of the sum of squares of the channels around its own."""
    attributes = node.attributes
    size = int(attributes["size"])
    options = (
        size,
        float(attributes.get("alpha", 1e-4)) / size,
        float(attributes.get("beta", 0.75)),
        float(attributes.get("bias", 1.0)),
    )
    data = widened(node, node.inputs[0])
    return cast(node.compute(_divided_by_neighbours, data, *options), node.dtype())


def _divided_by_neighbours(data: Any, size: int, alpha: float, beta: float, bias: float) -> Any:
    from tvm import te, tirx

    channels, before = int(data.shape[1]), (size - 1) // 2
    step = te.reduce_axis((0, size), "step")

    def square(n: Any, c: Any, *rest: Any) -> Any:
        channel = c + step - before
        value = data(n, channel, *rest)
        inside = tirx.all(channel >= 0, channel < channels)
        return te.sum(
            tirx.if_then_else(inside, value * value, tirx.const(0, data.dtype)), axis=step
        )

    squares = te.compute(data.shape, square, name="squares")

    def divided(*at: Any) -> Any:
        floor = tirx.const(bias, data.dtype)
        base = floor + tirx.const(alpha, data.dtype) * squares(*at)
        if bias > 0 and alpha >= 0:  # which changes nothing, but says that the base is positive
            base = tirx.max(base, floor)
        return data(*at) * tirx.power(base, tirx.const(-beta, data.dtype))

    return te.compute(data.shape, divided, name="lrn")


CONVERTERS: dict[str, Converter] = {
    "GroupNormalization": _group_norm,
    "InstanceNormalization": _instance_norm,
    "LRN": _local_response_norm,
    "LayerNormalization": _layer_norm,
    "LpNormalization": _lp_norm,
    "MeanVarianceNormalization": _mean_variance_norm,
    "RMSNormalization": _rms_norm,
}

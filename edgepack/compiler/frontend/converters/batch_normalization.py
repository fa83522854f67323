"""BatchNormalization: a factor and an offset for each channel, known when the model is compiled.

In training mode, which some exporters leave on, the statistics are those of the batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgepack.compiler.frontend.converters.values import (
    along,
    bound,
    cast,
    constants_of,
    reshaped,
    widened,
    working_type,
)
from edgepack.compiler.frontend.node import Converter, Node, constant, shape_of

if TYPE_CHECKING:
    import numpy as np

DOMAIN = ""

_TRAINING_ATTRIBUTE_OPSET = 14
_IS_TEST_OPSET = 7
"""Before it, an attribute is_test says what the number of outputs says since."""


def _batch_norm(node: Node) -> Any:
    if _is_training(node):
        return _in_training(node)
    data = widened(node, node.inputs[0])
    factor, offset = _factor_and_offset(node, node.inputs[3], node.inputs[4])
    return _applied(node, data, factor, offset)


def _is_training(node: Node) -> bool:
    if node.opset >= _TRAINING_ATTRIBUTE_OPSET:
        return bool(node.attributes.get("training_mode", 0))
    asked = any(output.name for output in node.outputs[1:])
    return asked and not (node.opset < _IS_TEST_OPSET and node.attributes.get("is_test", 0))


def _applied(node: Node, data: Any, factor: Any, offset: Any) -> Any:
    from tvm import relax

    factor, offset = (_spread(node, operand) for operand in (factor, offset))
    scaled = node.emit(relax.op.multiply(data, factor))
    return cast(node.emit(relax.op.add(scaled, offset)), node.dtype())


def _spread(node: Node, operand: Any) -> Any:
    """A parameter, for each channel or for each element of an image, as it spreads over the data."""
    rank, extents = len(node.shape()), shape_of(operand)
    if rank == 1:  # one channel
        return operand
    shaped = along(operand, 1, rank) if len(extents) == 1 else reshaped(operand, [1, *extents])
    return bound(node, shaped)


def _factor_and_offset(node: Node, mean: Any, variance: Any) -> tuple[Any, Any]:
    """scale / sqrt(variance + epsilon), and the offset less the mean times that."""
    from tvm import relax

    epsilon, dtype = _epsilon(node), working_type(node.dtype())
    known = constants_of([node.inputs[1], node.inputs[2], mean, variance])
    if known is not None:
        return _folded(known, epsilon, dtype)
    scale, offset, mean, variance = (
        bound(node, cast(operand, dtype)) for operand in (*node.inputs[1:3], mean, variance)
    )
    shifted = node.emit(relax.op.add(variance, constant(epsilon, dtype)))
    factor = node.emit(relax.op.divide(scale, node.emit(relax.op.sqrt(shifted))))
    moved = node.emit(relax.op.multiply(mean, factor))
    return factor, node.emit(relax.op.subtract(offset, moved))


def _folded(parameters: list[np.ndarray], epsilon: float, dtype: str) -> tuple[Any, Any]:
    """As _factor_and_offset; in float64, to round once."""
    import numpy as np

    scale, offset, mean, variance = (array.astype(np.float64) for array in parameters)
    with np.errstate(all="ignore"):  # a negative variance gives NaN, as it would at run time
        factor = scale / np.sqrt(variance + epsilon)
        return constant(factor, dtype), constant(offset - mean * factor, dtype)


def _epsilon(node: Node) -> float:
    return float(node.attributes.get("epsilon", 1e-5))


def _in_training(node: Node) -> list[Any]:
    """Y, the running statistics, and before opset 14 the batch's own."""
    from tvm import relax

    if not node.attributes.get("spatial", 1):
        raise node.unsupported("training mode with statistics for each element (spatial=0)")
    data = widened(node, node.inputs[0])
    axes = [axis for axis in range(len(node.shape())) if axis != 1]
    average = node.emit(relax.op.mean(data, axes, keepdims=True))
    centred = node.emit(relax.op.subtract(data, average))
    square = node.emit(relax.op.multiply(centred, centred))
    channels = [node.shape()[1]]
    mean = bound(node, reshaped(average, channels))
    variance = node.emit(relax.op.mean(square, axes))
    factor, offset = _factor_and_offset(node, mean, variance)
    result = _applied(node, data, factor, offset)
    momentum = float(node.attributes.get("momentum", 0.9))
    batch = (mean, variance)
    running = [
        _running(node, old, new, momentum) for old, new in zip(node.inputs[3:5], batch, strict=True)
    ]
    outputs = [output.dtype for output in node.outputs[1:]]
    statistics = [*running, *batch]
    return [result, *(_as(value, dtype) for value, dtype in zip(statistics, outputs, strict=False))]


def _running(node: Node, old: Any, new: Any, momentum: float) -> Any:
    """The old value times momentum, and the new one times what is left."""
    from tvm import relax

    dtype = working_type(node.dtype())
    kept = node.emit(relax.op.multiply(bound(node, cast(old, dtype)), constant(momentum, dtype)))
    taken = node.emit(relax.op.multiply(new, constant(1 - momentum, dtype)))
    return node.emit(relax.op.add(kept, taken))


def _as(value: Any, dtype: str) -> Any:
    return cast(value, dtype) if dtype else value


CONVERTERS: dict[str, Converter] = {"BatchNormalization": _batch_norm}

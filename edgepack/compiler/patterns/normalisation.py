"""Layer and RMS normalisation: first the division, then its scale, then its offset, each by itself."""

from __future__ import annotations

from typing import Any

from edgepack.compiler.patterns.graph import Graph, Pattern, dtype_of, shape_of


def _layer_norm(graph: Graph, call: Any) -> Any:
    """(x - mean(x)) / sqrt(mean((x - mean(x))**2) + epsilon)."""
    from tvm import relax

    found = _divided_by_its_size(graph, call)
    if found is None:
        return None
    centred, axes, epsilon = found
    data = _uncentred(graph, centred, axes)
    if data is None:
        return None
    extents = _extents(data, axes)
    ones, zeros = (_filled(data, extents, value) for value in (1, 0))
    return relax.op.nn.layer_norm(data, ones, zeros, axes, epsilon)


def _rms_norm(graph: Graph, call: Any) -> Any:
    """x / sqrt(mean(x**2) + epsilon)."""
    from tvm import relax

    found = _divided_by_its_size(graph, call)
    if found is None:
        return None
    data, axes, epsilon = found
    # TVM can lower it for the last axes alone, and not for all of them.
    if axes[-1] != len(shape_of(data) or ()) - 1 or axes[0] == 0:
        return None
    return relax.op.nn.rms_norm(data, _filled(data, _extents(data, axes), 1), axes, epsilon)


def _scaled(graph: Graph, call: Any) -> Any:
    """A normalisation without a scale, multiplied by one."""
    from tvm import ir

    for data, scale in graph.both_ways(call, "multiply"):
        norm = graph.call(data, "nn.layer_norm", "nn.rms_norm")
        if norm is None or not all(_is_filled(x, i == 1) for i, x in enumerate(norm.args) if i):
            continue
        parameter = _parameter(norm, scale)
        if parameter is not None:
            operands = [norm.args[0], parameter, *norm.args[2:]]
            return ir.Call(norm.op, operands, norm.attrs, norm.ty_args)
    return None


def _offset(graph: Graph, call: Any) -> Any:
    """A layer normalisation without an offset, and one added."""
    from tvm import ir

    for data, offset in graph.both_ways(call, "add"):
        norm = graph.call(data, "nn.layer_norm")
        if norm is None or not _is_filled(norm.args[2], False):
            continue
        parameter = _parameter(norm, offset)
        if parameter is not None:
            operands = [norm.args[0], norm.args[1], parameter]
            return ir.Call(norm.op, operands, norm.attrs, norm.ty_args)
    return None


def _divided_by_its_size(graph: Graph, call: Any) -> tuple[Any, list[int], float] | None:
    """x, the axes and epsilon of x / sqrt(mean(x * x) + epsilon), in any of its spellings."""
    if not dtype_of(call).startswith("float"):
        return None
    for data, size in _quotients(graph, call):
        shifted = graph.with_scalar(size, "add")
        mean = graph.call(shifted[0], "mean") if shifted is not None else None
        if shifted is None or mean is None or not mean.attrs.keepdims:
            continue
        if shape_of(data) != shape_of(call):
            continue
        square = graph.operands(mean.args[0], "multiply")
        axes = _normalised_axes(mean, data)
        if square is not None and axes and all(_same(graph, side, data) for side in square):
            return data, axes, shifted[1]
    return None


def _quotients(graph: Graph, call: Any) -> list[tuple[Any, Any]]:
    """x and y, where ``call`` is x / sqrt(y), x * (1 / sqrt(y)) or x * rsqrt(y)."""
    found = graph.operands(call, "divide")
    if found is not None:
        root = graph.call(found[1], "sqrt")
        return [(found[0], root.args[0])] if root is not None else []
    quotients = []
    for data, factor in graph.both_ways(call, "multiply"):
        inverse = graph.operands(factor, "divide")
        if (root := graph.call(factor, "rsqrt")) is not None:
            quotients.append((data, root.args[0]))
        elif inverse is not None and _is_filled(inverse[0], True):
            root = graph.call(inverse[1], "sqrt")
            quotients += [(data, root.args[0])] if root is not None else []
    return quotients


def _uncentred(graph: Graph, centred: Any, axes: list[int]) -> Any:
    """x, if ``centred`` is x less its mean over ``axes``."""
    found = graph.operands(centred, "subtract")
    mean = graph.call(found[1], "mean") if found is not None else None
    if found is None or mean is None or not mean.args[0].same_as(found[0]):
        return None
    if not mean.attrs.keepdims or _normalised_axes(mean, found[0]) != axes:
        return None
    return found[0]


def _same(graph: Graph, left: Any, right: Any) -> bool:
    """Whether two expressions are one, or the same difference computed twice."""
    if left.same_as(right):
        return True
    first, second = (graph.operands(side, "subtract") for side in (left, right))
    if first is None or second is None or not first[0].same_as(second[0]):
        return False
    means = [graph.call(side[1], "mean") for side in (first, second)]
    if any(mean is None or not mean.args[0].same_as(first[0]) for mean in means):
        return False
    axes = [(_normalised_axes(mean, first[0]), bool(mean.attrs.keepdims)) for mean in means]
    return axes[0] == axes[1]


def _normalised_axes(mean: Any, data: Any) -> list[int]:
    """The axes of ``mean``, if a normalisation can have them: one, or all from one to the last."""
    shape = shape_of(data)
    if shape is None or mean.attrs.axis is None:
        return []
    axes = sorted(int(axis) % len(shape) for axis in mean.attrs.axis)
    return axes if len(axes) == 1 or axes == list(range(axes[0], len(shape))) else []


def _parameter(norm: Any, operand: Any) -> Any:
    """``operand`` in the shape of a scale, if it spreads over nothing but the normalised axes."""
    from tvm import ir, relax

    data, parameter = norm.args[0], norm.args[1]
    shape, extents, full = shape_of(operand), shape_of(parameter), shape_of(data)
    if shape is None or extents is None or full is None or dtype_of(operand) != dtype_of(parameter):
        return None
    axes = {int(axis) % len(full) for axis in norm.attrs.axes}
    spread = tuple(extent if axis in axes else 1 for axis, extent in enumerate(full))
    if len(shape) > len(full) or (1,) * (len(full) - len(shape)) + shape != spread:
        return None
    if isinstance(operand, ir.GenericConst):
        return relax.const(operand.value.numpy().reshape(extents), dtype_of(operand))
    return operand if shape == extents else None


def _extents(data: Any, axes: list[int]) -> list[int]:
    shape = shape_of(data) or ()
    return [shape[axis] for axis in axes]


def _filled(data: Any, extents: list[int], value: float) -> Any:
    import numpy as np
    from tvm import relax

    return relax.const(np.full(extents, value, dtype_of(data)), dtype_of(data))


def _is_filled(expression: Any, value: float) -> bool:
    from tvm import ir

    return isinstance(expression, ir.GenericConst) and bool(
        (expression.value.numpy() == value).all()
    )


PATTERNS: tuple[Pattern, ...] = (_layer_norm, _rms_norm, _scaled, _offset)

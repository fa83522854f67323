"""Pooling: the largest, the mean or a norm of each window, or of everything.

Signals and images go to Relax's operators, which the layout pass makes channels last, and volumes in
two steps; what those lack are formulas.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from edgepack.compiler.frontend.converters.values import (
    as_images,
    as_volume,
    bound,
    cast,
    filled,
    reshaped,
    widened,
)
from edgepack.compiler.frontend.converters.windows import Windows, windows_of
from edgepack.compiler.frontend.node import Converter, Node, constant, dtype_of

DOMAIN = ""

_RELAX_RANK = 2
"""Spatial axes that Relax's operators are used for."""


def _max_pool(node: Node) -> list[Any]:
    windows = windows_of(node, node.attributes["kernel_shape"])
    data = node.inputs[0]
    if windows.rank <= _RELAX_RANK:
        result = node.emit(_by_relax("max", data, windows))
    elif windows.is_volume:
        result = node.emit(_by_planes(node, "max", data, windows))
    else:
        result = node.compute(partial(_largest, windows=windows), data)
    if len(node.outputs) < 2 or not node.outputs[1].name:
        return [result]
    column_major = bool(node.attributes.get("storage_order", 0))
    found = partial(_places, windows=windows, column_major=column_major)
    return [result, node.compute(found, data, result, name="max_pool_indices")]


def _by_relax(kind: str, data: Any, windows: Windows, *, padded: bool = False) -> Any:
    """relax.op.nn.max_pool2d and its kin."""
    from tvm import relax

    operator = getattr(relax.op.nn, f"{kind}_pool{windows.rank}d")
    return operator(
        data,
        list(windows.kernel),
        list(windows.strides),
        windows.padding,
        list(windows.dilations),
        ceil_mode=False,
        count_include_pad=padded,
    )


def _by_planes(node: Node, kind: str, data: Any, windows: Windows) -> Any:
    """Volumes [N, C, D, H, W] pooled along D, and then as images: a window is a product of ranges."""
    from tvm import relax

    emit, operator = node.emit, relax.op
    batch, channels, depth, *extents = node.shape()
    columns = emit(operator.reshape(data, [batch, channels, depth, math.prod(extents)]))
    planes = emit(_by_relax(kind, columns, windows.first_alone()))
    planes = emit(operator.reshape(planes, [batch, channels, windows.outputs[0], *extents]))
    images = emit(_by_relax(kind, as_images(node, planes), windows.without_first()))
    return as_volume(node, images, batch)


def _on_data(data: Any, windows: Windows, at: Any, tap: Any, value: Any, other: Any) -> Any:
    """``value(place)`` for a tap on the data, ``other`` for one on padding."""
    from tvm import tirx

    place = windows.place(at[2:], tap)
    inside = windows.inside(place)
    element = value(data(*at[:2], *place), place)
    return element if inside is None else tirx.if_then_else(inside, element, other)


def _taps(windows: Windows) -> list[Any]:
    from tvm import te

    return [te.reduce_axis((0, extent), f"tap{axis}") for axis, extent in enumerate(windows.kernel)]


def _largest(data: Any, windows: Windows) -> Any:
    from tvm import te, tirx

    taps, lowest = _taps(windows), tirx.min_value(data.dtype)

    def largest(*at: Any) -> Any:
        term = _on_data(data, windows, at, taps, lambda element, _: element, lowest)
        return te.max(term, axis=taps)

    return te.compute((*data.shape[:2], *windows.outputs), largest, name="max_pool")


def _places(data: Any, largest: Any, windows: Windows, column_major: bool) -> Any:
    """Where in the flattened data each window's largest element is; the first, if there are several.

    With ``column_major`` the first spatial axis is the one whose places are neighbours.
    """
    from tvm import te, tirx

    taps, size = _taps(windows), math.prod(windows.extents)
    nowhere = tirx.const(size - 1, "int64")

    def first(*at: Any) -> Any:
        def place_of(element: Any, place: Any) -> Any:
            flat = _flat(place, windows.extents)
            return tirx.Select(element.equal(largest(*at)), flat, nowhere)

        return te.min(_on_data(data, windows, at, taps, place_of, nowhere), axis=taps)

    shape = (*data.shape[:2], *windows.outputs)
    found = te.compute(shape, first, name="place")

    def numbered(n: Any, c: Any, *at: Any) -> Any:
        place = found(n, c, *at)
        if column_major:
            place = _flat(_unflattened(place, windows.extents)[::-1], windows.extents[::-1])
        image = tirx.Cast("int64", n * data.shape[1] + c)
        return image * tirx.const(size, "int64") + place

    return te.compute(shape, numbered, name="max_pool_indices")


def _flat(place: Any, extents: Any) -> Any:
    from tvm import tirx

    flat = tirx.const(0, "int64")
    for at, extent in zip(place, extents, strict=True):
        flat = flat * tirx.const(extent, "int64") + tirx.Cast("int64", at)
    return flat


def _unflattened(flat: Any, extents: Any) -> list[Any]:
    from tvm import tirx

    place: list[Any] = []
    for extent in reversed(extents):
        place.insert(0, tirx.floormod(flat, tirx.const(extent, "int64")))
        flat = tirx.floordiv(flat, tirx.const(extent, "int64"))
    return place


def _average_pool(node: Node) -> Any:

    windows = windows_of(node, node.attributes["kernel_shape"])
    padded = bool(node.attributes.get("count_include_pad", 0))
    data = widened(node, node.inputs[0])
    if windows.rank <= _RELAX_RANK and not padded:
        result = _by_relax("avg", data, windows)
    elif windows.is_volume and not padded:
        result = _by_planes(node, "avg", data, windows)
    else:
        # Windows that reach beyond the padding asked for count only as far as it goes.
        result = _sums_over(node, data, windows, windows.counts(padded=padded))
    return cast(bound(node, result), node.dtype())


def _sums_over(node: Node, data: Any, windows: Windows, divisors: Any) -> Any:
    """The sum of each window over its divisor; ``divisors`` has the outputs' extents."""
    from tvm import relax

    dtype = dtype_of(data)
    if windows.rank <= _RELAX_RANK:
        sums, done = node.emit(_by_relax("avg", data, windows, padded=True)), windows.taps
    else:
        sums, done = node.compute(partial(_summed, windows=windows), data), 1
    factors = done / divisors
    if factors.min() == factors.max():
        factor = float(factors.max())
        return sums if factor == 1 else relax.op.multiply(sums, constant(factor, dtype))
    return relax.op.multiply(sums, constant(factors[None, None], dtype))


def _summed(data: Any, windows: Windows) -> Any:
    from tvm import te, tirx

    taps, zero = _taps(windows), tirx.const(0, data.dtype)

    def total(*at: Any) -> Any:
        term = _on_data(data, windows, at, taps, lambda element, _: element, zero)
        return te.sum(term, axis=taps)

    return te.compute((*data.shape[:2], *windows.outputs), total, name="sum_pool")


def _lp_pool(node: Node) -> Any:
    """The p-norm of each window; padding is 0."""
    import numpy as np

    windows = windows_of(node, node.attributes["kernel_shape"])
    data = widened(node, node.inputs[0])
    power = float(node.attributes.get("p", 2))
    terms = _raised(node, data, power)
    sums = bound(node, _sums_over(node, terms, windows, np.ones(windows.outputs)))
    return cast(_root(node, sums, power), node.dtype())


def _raised(node: Node, data: Any, power: float) -> Any:
    """|x| to a power."""
    from tvm import relax

    if power == 2:
        return node.emit(relax.op.multiply(data, data))
    size = node.emit(relax.op.abs(data))
    if power == 1:
        return size
    return node.emit(relax.op.power(size, constant(power, dtype_of(data))))


def _root(node: Node, sums: Any, power: float) -> Any:
    from tvm import relax

    if power == 1:
        return sums
    if power == 2:
        return node.emit(relax.op.sqrt(sums))
    return node.emit(relax.op.power(sums, constant(1 / power, dtype_of(sums))))


def _over_everything(node: Node, reduction: str) -> Any:
    from tvm import relax

    axes = list(range(2, len(node.shape())))
    if not axes:
        return node.inputs[0]
    data = node.inputs[0] if reduction == "max" else widened(node, node.inputs[0])
    reduced = node.emit(getattr(relax.op, reduction)(data, axes, keepdims=True))
    return cast(reduced, node.dtype())


def _global_lp_pool(node: Node) -> Any:
    from tvm import relax

    axes = list(range(2, len(node.shape())))
    data, power = widened(node, node.inputs[0]), float(node.attributes.get("p", 2))
    sums = node.emit(relax.op.sum(_raised(node, data, power), axes, keepdims=True))
    return cast(_root(node, sums, power), node.dtype())


def _max_unpool(node: Node) -> Any:
    """Values put back where a MaxPool found them; zero elsewhere."""
    from tvm import relax

    shape, dtype = node.outputs[0].shape, node.dtype()
    empty = filled([math.prod(shape)], 0, dtype)
    places, values = (
        bound(node, reshaped(operand, [math.prod(node.shape())]))
        for operand in node.inputs[:2][::-1]
    )
    scattered = node.emit(relax.op.scatter_elements(empty, places, values, axis=0))
    return reshaped(scattered, shape)


CONVERTERS: dict[str, Converter] = {
    "AveragePool": _average_pool,
    "GlobalAveragePool": partial(_over_everything, reduction="mean"),
    "GlobalLpPool": _global_lp_pool,
    "GlobalMaxPool": partial(_over_everything, reduction="max"),
    "LpPool": _lp_pool,
    "MaxPool": _max_pool,
    "MaxUnpool": _max_unpool,
}

"""Lowerings of our own for operators whose loops the schedule library writes.

Each is one stage whose formula says everything, padding included, so that any rule, also the plain
one, computes it rightly; an annotation on the stage gives the geometry to the rules that know it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from edgepack.errors import CompileError

CONVOLUTION = "edgepack.convolution"
"""Annotation of a convolution's stage: JSON of layout, strides, padding, dilation and groups."""
TRANSPOSED = "edgepack.transposed"
"""Annotation of a transposed convolution's: JSON of strides, padding, groups and output size."""

Legalization = Callable[[Any, Any], Any]


def legalizations() -> dict[str, Legalization]:
    """What ``relax.transform.LegalizeOps`` takes in place of TVM's own."""
    return {
        "relax.nn.conv2d": _conv2d,
        "relax.nn.conv2d_transpose": _conv2d_transpose,
        "relax.nn.softmax": _softmax,
        "relax.image.resize2d": _resize2d,
    }


def _integers(values: Sequence[Any]) -> list[int]:
    return [int(value) for value in values]


def _conv2d(builder: Any, call: Any) -> Any:
    attrs = call.attrs
    if str(attrs.kernel_layout) != "HWIO" or str(attrs.out_layout) not in ("NHWC", ""):
        return _default("relax.nn.conv2d")(builder, call)
    if str(attrs.data_layout) not in ("NHWC", "NCHW"):
        return _default("relax.nn.conv2d")(builder, call)
    geometry = {
        "layout": str(attrs.data_layout),
        "strides": _integers(attrs.strides),
        "padding": _integers(attrs.padding),
        "dilation": _integers(attrs.dilation),
        "groups": int(attrs.groups),
    }
    return builder.call_te(convolution, *call.args, geometry, primfunc_name_hint="conv2d")


def _default(name: str) -> Legalization:
    from tvm import ir

    lowering: Legalization = ir.Op.get(name).get_attr("FLegalize")
    return lowering


def convolution(data: Any, weight: Any, geometry: dict[str, Any]) -> Any:
    """A 2-D convolution of [N, H, W, C] (or [N, C, H, W]) with [KH, KW, C / groups, O], as NHWC.

    ``padding`` is top, left, bottom, right, in elements.
    """
    from tvm import te, tirx

    channels_last = geometry["layout"] == "NHWC"
    batch, *rest = [int(extent) for extent in data.shape]
    height, width = rest[:2] if channels_last else rest[1:]
    rows, columns, depth, out = [int(extent) for extent in weight.shape]
    (down, across), (far_y, far_x) = geometry["strides"], geometry["dilation"]
    top, left, bottom, right = geometry["padding"]
    groups = int(geometry["groups"])
    out_height = (height + top + bottom - far_y * (rows - 1) - 1) // down + 1
    out_width = (width + left + right - far_x * (columns - 1) - 1) // across + 1
    ry = te.reduce_axis((0, rows), "ry")
    rx = te.reduce_axis((0, columns), "rx")
    rc = te.reduce_axis((0, depth), "rc")

    def element(n: Any, y: Any, x: Any, o: Any) -> Any:
        row = y * down + ry * far_y - top
        column = x * across + rx * far_x - left
        channel = rc if groups == 1 else tirx.floordiv(o, out // groups) * depth + rc
        value = data(n, row, column, channel) if channels_last else data(n, channel, row, column)
        inside = []
        if top or (out_height - 1) * down + (rows - 1) * far_y - top >= height:
            inside += [row >= 0, row < height]
        if left or (out_width - 1) * across + (columns - 1) * far_x - left >= width:
            inside += [column >= 0, column < width]
        if inside:
            value = tirx.if_then_else(tirx.all(*inside), value, tirx.const(0, data.dtype))
        return te.sum(value * weight(ry, rx, rc, o), axis=[ry, rx, rc])

    return te.compute(
        (batch, out_height, out_width, out),
        element,
        name="conv2d",
        attrs={CONVOLUTION: json.dumps(geometry, sort_keys=True)},
    )


def _conv2d_transpose(builder: Any, call: Any) -> Any:
    attrs = call.attrs
    if (str(attrs.data_layout), str(attrs.kernel_layout)) != ("NHWC", "HWIO"):
        return _default("relax.nn.conv2d_transpose")(builder, call)
    data, weight = call.args
    geometry = {
        "strides": _integers(attrs.strides),
        "padding": _integers(attrs.padding),
        "groups": int(attrs.groups),
        "output": _integers(call.ty.shape)[1:3],
    }
    return builder.call_te(
        transposed_convolution,
        data,
        _dilated(weight, _integers(attrs.dilation)),
        geometry,
        primfunc_name_hint="conv2d_transpose",
    )


def _dilated(weight: Any, dilation: Sequence[int]) -> Any:
    """A kernel [KH, KW, C, O] with zeros between its taps, so that its own dilation is 1."""
    import numpy as np
    from tvm import ir, relax

    if tuple(dilation) == (1, 1):
        return weight
    if not isinstance(weight, ir.GenericConst):
        raise CompileError(
            "a transposed convolution with dilation has weights that are computed by the model",
            "export the model with constant weights, or without dilation",
        )
    array = weight.value.numpy()
    rows, columns = ((k - 1) * d + 1 for k, d in zip(array.shape, dilation, strict=False))
    spread = np.zeros((rows, columns, *array.shape[2:]), array.dtype)
    spread[:: dilation[0], :: dilation[1]] = array
    return relax.const(spread)


def transposed_convolution(data: Any, weight: Any, geometry: dict[str, Any]) -> Any:
    """A transposed convolution of [N, H, W, C] with [KH, KW, C, O / groups], as [N, H, W, O].

    Written as a gather that meets no zeros: output row y = q * stride + r - top takes kernel rows
    r, r + stride, … of input rows q, q - 1, …
    """
    from tvm import te, tirx

    batch, height, width, channels = [int(extent) for extent in data.shape]
    rows, columns, _, out = [int(extent) for extent in weight.shape]
    down, across = geometry["strides"]
    top, left = geometry["padding"][:2]
    out_height, out_width = geometry["output"]
    groups = int(geometry["groups"])
    depth = channels // groups
    ry = te.reduce_axis((0, -(-rows // down)), "ry")
    rx = te.reduce_axis((0, -(-columns // across)), "rx")
    rc = te.reduce_axis((0, depth), "rc")
    zero = tirx.const(0, data.dtype)

    def element(n: Any, y: Any, x: Any, o: Any) -> Any:
        kh = tirx.floormod(y + top, down) + ry * down
        kw = tirx.floormod(x + left, across) + rx * across
        row = tirx.floordiv(y + top, down) - ry
        column = tirx.floordiv(x + left, across) - rx
        channel = rc if groups == 1 else tirx.floordiv(o, out) * depth + rc
        result = o if groups == 1 else tirx.floormod(o, out)
        inside = tirx.all(row >= 0, row < height, column >= 0, column < width)
        value = tirx.if_then_else(inside, data(n, row, column, channel), zero)
        tap = tirx.if_then_else(
            tirx.all(kh < rows, kw < columns), weight(kh, kw, channel, result), zero
        )
        return te.sum(value * tap, axis=[ry, rx, rc])

    return te.compute(
        (batch, out_height, out_width, out * groups),
        element,
        name="conv2d_transpose",
        attrs={TRANSPOSED: json.dumps(geometry, sort_keys=True)},
    )


def _resize2d(builder: Any, call: Any) -> Any:
    """Linear interpolation by tables: TVM's own computes places and weights for every element."""
    from tvm import relax

    from edgepack.compiler.frontend.converters import resize_tables

    attrs, (data, _) = call.attrs, call.args
    layout, dtype = str(attrs.layout), str(data.ty.dtype)
    if str(attrs.method) != "linear" or layout not in ("NHWC", "NCHW") or dtype != "float32":
        return _default("relax.image.resize2d")(builder, call)
    kernel = resize_tables.Kernel(
        mode="linear", transformation=str(attrs.coordinate_transformation_mode)
    )
    first = layout.index("H")
    before, after = _integers(data.ty.shape), _integers(call.ty.shape)
    tables = []
    for extent, output in zip(before[first : first + 2], after[first : first + 2], strict=True):
        axis = resize_tables.Axis(extent=extent, output=output, scale=output / extent)
        table = resize_tables.table(axis, kernel)
        tables += [relax.const(table.places), relax.const(table.weights.astype(dtype))]
    return builder.call_te(resized, data, *tables, layout, primfunc_name_hint="resize2d")


def resized(
    data: Any, rows: Any, row_weights: Any, columns: Any, column_weights: Any, layout: str
) -> Any:
    """An image [N, H, W, C] or [N, C, H, W] resized: sums of ``weights[o, k] * data[places[o, k]]``.

    ``rows`` and ``columns`` are places, int32 [outputs, taps]; their weights have the same shape.
    """
    from tvm import te

    first = layout.index("H")
    shape = [int(extent) for extent in data.shape]
    shape[first : first + 2] = int(rows.shape[0]), int(columns.shape[0])

    def element(*at: Any) -> Any:
        y, x = at[first : first + 2]

        def line(row: Any) -> Any:
            terms = [
                data(*at[:first], row, columns(x, tap), *at[first + 2 :]) * column_weights(x, tap)
                for tap in range(int(columns.shape[1]))
            ]
            return sum(terms[1:], terms[0])

        lines = [line(rows(y, tap)) * row_weights(y, tap) for tap in range(int(rows.shape[1]))]
        return sum(lines[1:], lines[0])

    return te.compute(shape, element, name="resize")


def _softmax(builder: Any, call: Any) -> Any:
    (data,) = call.args
    axis = int(call.attrs.axis) % len(call.ty.shape)
    return builder.call_te(softmax, data, axis, primfunc_name_hint="softmax")


def softmax(data: Any, axis: int) -> Any:
    """exp(x - max) times the reciprocal of its sum along ``axis``.

    One division a line: a core takes as long for a vector's division as for its exponentials.
    """
    from tvm import te, tirx

    shape = [int(extent) for extent in data.shape]
    lines = shape[:axis] + shape[axis + 1 :]

    def of_line(position: Sequence[Any]) -> Sequence[Any]:
        return [*position[:axis], *position[axis + 1 :]]

    def reduced(combine: Callable[..., Any], values: Any, name: str) -> Any:
        k = te.reduce_axis((0, shape[axis]), "k")
        return te.compute(
            lines, lambda *i: combine(values(*i[:axis], k, *i[axis:]), axis=k), name=name
        )

    largest = reduced(te.max, data, "softmax_max")
    powers = te.compute(
        shape, lambda *i: te.exp(data(*i) - largest(*of_line(i))), name="softmax_exp"
    )
    total = reduced(te.sum, powers, "softmax_sum")
    one = tirx.const(1, data.dtype)
    scale = te.compute(lines, lambda *i: one / total(*i), name="softmax_scale")
    return te.compute(shape, lambda *i: powers(*i) * scale(*of_line(i)), name="softmax")

"""Lowerings of our own for operators whose loops the schedule library writes.

Each is one stage whose formula says everything, padding included, so that any rule, also the plain
one, computes it rightly; an annotation on the stage gives the geometry to the rules that know it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

CONVOLUTION = "edgepack.convolution"
"""Annotation of a convolution's stage: JSON of layout, strides, padding, dilation and groups."""
TRANSPOSED = "edgepack.transposed"
"""The same of a transposed convolution's."""

Legalization = Callable[[Any, Any], Any]


def legalizations() -> dict[str, Legalization]:
    """What ``relax.transform.LegalizeOps`` takes in place of TVM's own."""
    return {"relax.nn.conv2d": _conv2d, "relax.nn.conv2d_transpose": _conv2d_transpose}


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
    geometry = {
        "layout": "NHWC",
        "strides": _integers(attrs.strides),
        "padding": _integers(attrs.padding),
        "dilation": _integers(attrs.dilation),
        "groups": int(attrs.groups),
        "output": _integers(call.ty.shape)[1:3],
    }
    return builder.call_te(
        transposed_convolution, *call.args, geometry, primfunc_name_hint="conv2d_transpose"
    )


def transposed_convolution(data: Any, weight: Any, geometry: dict[str, Any]) -> Any:
    """A transposed convolution of [N, H, W, C] with [KH, KW, C, O / groups], as [N, H, W, O].

    Written as a gather: output row y takes input row (y + top - kh * dilation) / stride wherever
    that is a whole number inside the image.
    """
    from tvm import te, tirx

    batch, height, width, channels = [int(extent) for extent in data.shape]
    rows, columns, _, out = [int(extent) for extent in weight.shape]
    (down, across), (far_y, far_x) = geometry["strides"], geometry["dilation"]
    top, left = geometry["padding"][:2]
    out_height, out_width = geometry["output"]
    groups = int(geometry["groups"])
    depth = channels // groups
    ry = te.reduce_axis((0, rows), "ry")
    rx = te.reduce_axis((0, columns), "rx")
    rc = te.reduce_axis((0, depth), "rc")

    def element(n: Any, y: Any, x: Any, o: Any) -> Any:
        row, column = y + top - ry * far_y, x + left - rx * far_x
        inside = tirx.all(
            row >= 0,
            column >= 0,
            row < height * down,
            column < width * across,
            tirx.floormod(row, down) == 0,
            tirx.floormod(column, across) == 0,
        )
        channel = rc if groups == 1 else tirx.floordiv(o, out) * depth + rc
        value = data(n, tirx.floordiv(row, down), tirx.floordiv(column, across), channel)
        value = tirx.if_then_else(inside, value, tirx.const(0, data.dtype))
        result = o if groups == 1 else tirx.floormod(o, out)
        return te.sum(value * weight(ry, rx, channel, result), axis=[ry, rx, rc])

    return te.compute(
        (batch, out_height, out_width, out * groups),
        element,
        name="conv2d_transpose",
        attrs={TRANSPOSED: json.dumps(geometry, sort_keys=True)},
    )

"""Resize and Upsample: elements between elements, axis by axis, by tables made at compile time.

What Relax's resize2d computes alike goes there: it follows the layout of the images around it.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from edgepack.compiler.frontend.converters import resize_tables
from edgepack.compiler.frontend.converters.resize_tables import Axis, Kernel, Table
from edgepack.compiler.frontend.converters.values import bound, cast, working_type
from edgepack.compiler.frontend.node import Converter, Node, constant, dtype_of, shape_of

DOMAIN = ""

_UNROLLED_TAPS = 8
_IMAGE_RANK = 4
_BY_RELAX = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")
_OLD_OPSET = 11
"""Before it: coordinates are asymmetric, and the nearest element is said nowhere."""


def _resize(node: Node) -> Any:
    attributes = node.attributes
    if node.opset < _OLD_OPSET:
        return _upsample(node)
    kernel = Kernel(
        mode=attributes.get("mode", "nearest"),
        transformation=attributes.get("coordinate_transformation_mode", "half_pixel"),
        nearest=attributes.get("nearest_mode", "round_prefer_floor"),
        cubic=float(attributes.get("cubic_coeff_a", -0.75)),
        antialias=bool(attributes.get("antialias", 0)),
        exclude_outside=bool(attributes.get("exclude_outside", 0)),
    )
    return _resized(node, _axes(node, kernel), kernel)


def _axes(node: Node, kernel: Kernel) -> list[Axis]:
    shape, outputs = node.shape(), node.outputs[0].shape
    rank = len(shape)
    chosen = [axis % rank for axis in node.attributes.get("axes", range(rank))]
    scales = _scales(node, chosen)
    starts, ends = [0.0] * rank, [1.0] * rank
    if kernel.transformation == "tf_crop_and_resize":
        region = node.known(1, "region of interest").astype(float).tolist()
        for number, axis in enumerate(chosen):
            starts[axis], ends[axis] = region[number], region[len(chosen) + number]
    return [
        Axis(extent=shape[a], output=outputs[a], scale=scales[a], start=starts[a], end=ends[a])
        for a in range(rank)
    ]


def _scales(node: Node, chosen: list[int]) -> list[float]:
    """Of every axis: as given, or the quotient of the lengths."""
    shape, outputs = node.shape(), node.outputs[0].shape
    scales = [output / extent for output, extent in zip(outputs, shape, strict=True)]
    if node.has(2) and node.shape(2) != (0,):
        for axis, scale in zip(chosen, node.known(2, "scales").tolist(), strict=True):
            scales[axis] = float(scale)
        return scales
    policy = node.attributes.get("keep_aspect_ratio_policy", "stretch")
    if policy != "stretch":
        sizes = node.known(3, "sizes").tolist()
        asked = [size / shape[axis] for axis, size in zip(chosen, sizes, strict=True)]
        common = min(asked) if policy == "not_larger" else max(asked)
        for axis in chosen:
            scales[axis] = common
    return scales


def _upsample(node: Node) -> Any:
    """Upsample, and Resize before opset 11."""
    attributes, shape = node.attributes, node.shape()
    if "scales" in attributes:
        scales = list(attributes["scales"])
    elif "height_scale" in attributes:
        scales = [1.0, 1.0, attributes["height_scale"], attributes["width_scale"]]
    else:
        scales = node.known(1, "scales").tolist()
    mode = attributes.get("mode", "nearest")
    axes = [
        Axis(extent=extent, output=output, scale=float(scale))
        for extent, output, scale in zip(shape, node.outputs[0].shape, scales, strict=True)
    ]
    kernel = Kernel(
        mode="linear" if mode == "bilinear" else mode,
        transformation="asymmetric",
        nearest="simple",
    )
    return _resized(node, axes, kernel)


def _resized(node: Node, axes: list[Axis], kernel: Kernel) -> Any:
    if _is_relax(node, axes, kernel):
        return _by_relax(node, axes, kernel)
    tables = {
        number: resize_tables.table(axis, kernel)
        for number, axis in enumerate(axes)
        if not _is_untouched(axis)
    }
    if kernel.mode == "nearest" and not any(t.outside.any() for t in tables.values()):
        return _gathered(node, node.inputs[0], tables)
    data = bound(node, cast(node.inputs[0], _arithmetic_type(node.dtype())))
    value = float(node.attributes.get("extrapolation_value", 0))
    # The axes that become shorter first, as the others then have less to do.
    for number in sorted(tables, key=lambda n: axes[n].output / axes[n].extent):
        data = _interpolated(node, data, number, tables[number], value)
    return _as_result(node, data, kernel)


def _is_untouched(axis: Axis) -> bool:
    same = axis.output == axis.extent and math.isclose(axis.scale, 1)
    return same and (axis.start, axis.end) == (0.0, 1.0)


def _arithmetic_type(dtype: str) -> str:
    return working_type(dtype) if dtype.startswith(("float", "bfloat")) else "float32"


def _as_result(node: Node, data: Any, kernel: Kernel) -> Any:
    """In the type of the input: integers are cut off, as ONNX Runtime does, or rounded."""
    import numpy as np
    from tvm import relax

    dtype = node.dtype()
    if "int" in dtype and kernel.mode != "nearest":
        if kernel.mode == "cubic" or kernel.antialias:
            data = node.emit(relax.op.round(data))
        limits = np.iinfo(dtype)
        data = node.emit(relax.op.clip(data, float(limits.min), float(limits.max)))
    return cast(data, dtype)


def _gathered(node: Node, data: Any, tables: dict[int, Table]) -> Any:
    """The nearest elements, moved in one go."""
    places = [constant(tables[axis].places[:, 0], "int32") for axis in sorted(tables)]
    moved = partial(_moved, axes=sorted(tables), shape=node.outputs[0].shape)
    return node.compute(moved, data, *places) if tables else data


def _moved(data: Any, *places: Any, axes: list[int], shape: tuple[int, ...]) -> Any:
    from tvm import te

    def element(*at: Any) -> Any:
        where = list(at)
        for axis, table in zip(axes, places, strict=True):
            where[axis] = table(at[axis])
        return data(*where)

    return te.compute(shape, element, name="resize")


def _interpolated(node: Node, data: Any, axis: int, table: Table, value: float) -> Any:
    """One axis resized; ``value`` stands where the table says that there is nothing."""
    shape = list(shape_of(data))
    shape[axis] = len(table.places)
    operands = [constant(table.places, "int32"), constant(table.weights, dtype_of(data))]
    if table.outside.any():
        operands.append(constant(table.outside, "int32"))
    summed = partial(_summed, axis=axis, shape=shape, value=value)
    return node.compute(summed, data, *operands)


def _summed(
    data: Any, places: Any, weights: Any, *outside: Any, axis: int, shape: list[int], value: float
) -> Any:
    from tvm import te, tirx

    taps = int(places.shape[1])

    def term(at: Any, tap: Any) -> Any:
        where = [*at[:axis], places(at[axis], tap), *at[axis + 1 :]]
        return data(*where) * weights(at[axis], tap)

    def finished(at: Any, total: Any) -> Any:
        if not outside:
            return total
        return tirx.Select(outside[0](at[axis]) != 0, tirx.const(value, data.dtype), total)

    if taps <= _UNROLLED_TAPS:
        return te.compute(
            shape,
            lambda *at: finished(at, sum((term(at, k) for k in range(1, taps)), term(at, 0))),
            name="resize",
        )
    tap = te.reduce_axis((0, taps), "tap")
    total = te.compute(shape, lambda *at: te.sum(term(at, tap), axis=tap), name="resize_sum")
    return te.compute(shape, lambda *at: finished(at, total(*at)), name="resize")


def _is_relax(node: Node, axes: list[Axis], kernel: Kernel) -> bool:
    """Whether Relax's resize2d gives the same: whole scales of an image's height and width."""
    if len(axes) != _IMAGE_RANK or kernel.transformation not in _BY_RELAX or kernel.antialias:
        return False
    if not node.dtype().startswith("float") or not all(map(_is_untouched, axes[:2])):
        return False
    spatial = axes[2:]
    if not all(axis.is_whole and axis.output > 1 for axis in spatial):
        return False
    if kernel.mode == "linear":
        return node.dtype() == "float32"
    return kernel.mode == "nearest" and all(_is_nearest(axis, kernel) for axis in spatial)


def _is_nearest(axis: Axis, kernel: Kernel) -> bool:
    """Whether resize2d, which multiplies where ONNX divides, is sure to find the same elements."""
    import numpy as np

    ratio = axis.extent / axis.output
    at, shift = np.arange(axis.output, dtype=np.float64), {"floor": 1e-5, "ceil": -1e-5}
    if kernel.transformation == "align_corners":
        found = at * (axis.extent - 1) / (axis.output - 1)
    elif kernel.transformation == "asymmetric":
        found = at * ratio
    else:
        found = (at + 0.5) * ratio - 0.5
    rounding = _rounding(axis, kernel)
    found = found + shift.get(rounding, 0.0)
    edge = found - (0.5 if rounding.startswith("round") else 0.0)
    is_exact = float(np.float32(ratio)) == ratio and kernel.transformation != "align_corners"
    margin = 0.0 if is_exact else 2**-22 * axis.extent
    known = resize_tables.table(axis, kernel).places[:, 0]
    same = np.array_equal(resize_tables.nearest(found, axis, rounding), known)
    return same and (is_exact or bool(np.abs(edge - np.round(edge)).min() > margin))


def _rounding(axis: Axis, kernel: Kernel) -> str:
    if kernel.nearest == "simple":
        return "ceil" if axis.scale < 1 else "floor"
    return kernel.nearest


def _by_relax(node: Node, axes: list[Axis], kernel: Kernel) -> Any:
    from tvm import relax

    return relax.op.image.resize2d(
        node.inputs[0],
        (axes[2].output, axes[3].output),
        layout="NCHW",
        method="nearest_neighbor" if kernel.mode == "nearest" else kernel.mode,
        coordinate_transformation_mode=kernel.transformation,
        rounding_method=_rounding(axes[2], kernel),
    )


CONVERTERS: dict[str, Converter] = {"Resize": _resize, "Upsample": _upsample}

"""Convolutions, pooling and resizing: always channels last.

What works on signals becomes the same operator on images of height 1: one kind of kernel for both.
A kernel of a convolution becomes height, width, input channels, output channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgepack.compiler.layout.rewrite import Rewriter, Rule
from edgepack.compiler.layout.tensors import Order, Shape, Tensor, channels_last

_FIRST = {3: "NCW", 4: "NCHW"}
_KERNELS: dict[str, Order] = {
    "OIHW": (2, 3, 1, 0),
    "IOHW": (2, 3, 0, 1),
    "OIW": (2, 1, 0),
    "IOW": (2, 0, 1),
}
"""What makes a kernel of ONNX's order H, W, I, O; without H for signals."""


def _convolution(rewriter: Rewriter, call: Any) -> Tensor | None:
    from tvm import relax

    attrs, data, weight = call.attrs, *map(rewriter.tensor, call.args)
    order = _KERNELS.get(str(attrs.kernel_layout))
    if not _is_channels_first(data, attrs.data_layout, attrs.out_layout) or order is None:
        return None
    options: dict[str, Any] = {
        "strides": _two(attrs.strides, 1),
        "padding": _pads(attrs.padding, data.rank),
        "dilation": _two(attrs.dilation, 1),
        "groups": int(attrs.groups),
        "out_dtype": attrs.out_dtype or None,
    }
    operator = relax.op.nn.conv2d
    if call.op.name.endswith("_transpose"):
        operator = relax.op.nn.conv2d_transpose
        options["output_padding"] = _two(attrs.output_padding, 0)
    kernel = weight.shaped(order, _image([weight.shape[axis] for axis in order], 0, 4))
    layouts = {"data_layout": "NHWC", "kernel_layout": "HWIO", "out_layout": "NHWC"}
    result = operator(_pixels(data), kernel, **options, **layouts)
    return rewriter.made(call, channels_last(data.rank), result)


def _pool(rewriter: Rewriter, call: Any) -> Tensor | None:
    from tvm import relax

    attrs, data = call.attrs, rewriter.tensor(call.args[0])
    if not _is_channels_first(data, attrs.layout, attrs.out_layout):
        return None
    operator = getattr(relax.op.nn, call.op.name.removeprefix("relax.nn.").replace("1d", "2d"))
    result = operator(
        _pixels(data),
        pool_size=_two(attrs.pool_size, 1),
        strides=_two(attrs.strides, 1),
        padding=_pads(attrs.padding, data.rank),
        dilation=_two(attrs.dilation, 1),
        ceil_mode=bool(attrs.ceil_mode),
        count_include_pad=bool(attrs.count_include_pad),
        layout="NHWC",
        out_layout="NHWC",
    )
    return rewriter.made(call, channels_last(data.rank), result)


def _adaptive_pool(rewriter: Rewriter, call: Any) -> Tensor | None:
    from tvm import relax

    attrs, data = call.attrs, rewriter.tensor(call.args[0])
    if not _is_channels_first(data, attrs.layout, attrs.out_layout):
        return None
    size = None if attrs.output_size is None else _two(attrs.output_size, 1)
    result = relax.op.nn.adaptive_avg_pool2d(
        _pixels(data), output_size=size, layout="NHWC", out_layout="NHWC"
    )
    return rewriter.made(call, channels_last(data.rank), result)


def _resize(rewriter: Rewriter, call: Any) -> Tensor | None:
    from tvm import relax

    attrs, data = call.attrs, rewriter.tensor(call.args[0])
    if not _is_channels_first(data, attrs.layout, attrs.layout):
        return None
    result = relax.op.image.resize2d(
        _pixels(data),
        call.args[1],
        roi=[float(edge) for edge in attrs.roi],
        layout="NHWC",
        method=attrs.method,
        coordinate_transformation_mode=attrs.coordinate_transformation_mode,
        rounding_method=attrs.rounding_method,
        cubic_alpha=attrs.cubic_alpha,
        cubic_exclude=attrs.cubic_exclude,
        extrapolation_value=attrs.extrapolation_value,
        out_dtype=attrs.out_dtype or None,
    )
    return rewriter.made(call, channels_last(data.rank), result)


def _is_channels_first(data: Tensor, *layouts: str) -> bool:
    return all(str(layout) == _FIRST.get(data.rank) for layout in layouts)


def _pixels(data: Tensor) -> Any:
    """``data`` as [N, H, W, C]; a signal has H = 1."""
    order = channels_last(data.rank)
    return data.shaped(order, _image([data.shape[axis] for axis in order], 1, 4))


def _image(extents: Sequence[int], height: int, rank: int) -> Shape:
    """``extents`` with an axis of extent 1 for the height, where it has none."""
    missing = [1] * (rank - len(extents))
    return (*extents[:height], *missing, *extents[height:])


def _two(values: Sequence[int], height: int) -> list[int]:
    """An attribute of a signal's one axis or of an image's two, as two."""
    return [height] * (2 - len(values)) + [int(value) for value in values]


def _pads(padding: Sequence[int], rank: int) -> list[int]:
    """Padding as top, left, bottom, right."""
    pads = [int(pad) for pad in padding]
    half = len(pads) // 2
    if rank == 3 and half:
        return [0, *pads[:half], 0, *pads[half:]]
    return pads


RULES: dict[str, Rule] = {
    "relax.nn.conv1d": _convolution,
    "relax.nn.conv2d": _convolution,
    "relax.nn.conv1d_transpose": _convolution,
    "relax.nn.conv2d_transpose": _convolution,
    "relax.nn.max_pool1d": _pool,
    "relax.nn.max_pool2d": _pool,
    "relax.nn.avg_pool1d": _pool,
    "relax.nn.avg_pool2d": _pool,
    "relax.nn.adaptive_avg_pool1d": _adaptive_pool,
    "relax.nn.adaptive_avg_pool2d": _adaptive_pool,
    "relax.image.resize2d": _resize,
}

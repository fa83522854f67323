"""Convolutions and transposed convolutions.

Signals and images go to Relax's operators, whose kernels the schedule library writes, and volumes
as batches of images where they have one group, a transposed one as a batch for each phase of its depth;
the rest are formulas. 16-bit types are computed in float32, their weights widened once.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from edgepack.compiler.frontend.converters.values import (
    along,
    as_images,
    as_volume,
    bound,
    cast,
    concatenated,
    filled,
    widened,
)
from edgepack.compiler.frontend.converters.windows import Windows, windows_of
from edgepack.compiler.frontend.node import (
    Converter,
    Node,
    constant,
    constant_of,
    dtype_of,
    shape_of,
)

DOMAIN = ""

_RELAX_RANK = 2
_VOLUME = 3
_LAYOUTS = {1: ("NCW", "OIW", "IOW"), 2: ("NCHW", "OIHW", "IOHW")}
"""By spatial axes: of the data, of a kernel, of a transposed convolution's kernel."""


def _conv(node: Node) -> Any:
    data, weight = (widened(node, operand) for operand in node.inputs[:2])
    result = node.emit(convolved(node, data, weight, windows_of(node, shape_of(weight)[2:])))
    return _finished(node, result)


def convolved(node: Node, data: Any, weight: Any, windows: Windows) -> Any:
    """The convolution of data [N, C, ...] with a kernel [O, C / group, ...]."""
    from tvm import relax

    groups = int(node.attributes.get("group", 1))
    if windows.is_volume and groups == 1 and dtype_of(data) == "float32":
        return _by_planes(node, data, weight, windows)
    if windows.rank > _RELAX_RANK:
        return node.compute(partial(_direct, windows=windows, groups=groups), data, weight)
    layout, kernel_layout, _ = _LAYOUTS[windows.rank]
    operator = getattr(relax.op.nn, f"conv{windows.rank}d")
    return operator(
        data,
        weight,
        list(windows.strides),
        windows.padding,
        list(windows.dilations),
        groups,
        layout,
        kernel_layout,
    )


def _by_planes(node: Node, data: Any, weight: Any, windows: Windows) -> Any:
    """A volume's convolution as that of images: one image for each plane of the result.

    The channels of an image are those of all planes under its window, one plane after the other:
    a copy of as many elements as the data times the window's depth, for which the kernels of
    images do the work. data [N, C, D, H, W], weight [O, C, taps, KH, KW].
    """
    from tvm import relax

    emit, operator = node.emit, relax.op
    starts = [tap * windows.dilations[0] for tap in range(windows.kernel[0])]
    around = (windows.before[0], windows.reach[0])
    images = _stacked(node, data, around, starts, windows.outputs[0], windows.strides[0])
    batch, channels = shape_of(data)[0], shape_of(images)[1]
    out, _, _, *kernel = shape_of(weight)
    flat = emit(operator.permute_dims(weight, [0, 2, 1, 3, 4]))
    flat = emit(operator.reshape(flat, [out, channels, *kernel]))
    result = convolved(node, images, flat, windows.without_first())
    return as_volume(node, emit(result), batch)


def _stacked(
    node: Node,
    volume: Any,
    around: tuple[int, int],
    starts: Sequence[int],
    planes: int,
    stride: int = 1,
) -> Any:
    """``planes`` images of each volume [N, C, D, H, W]: image p has the channels of several planes.

    Of the planes start + p * stride, for each of ``starts``, one after the other; they are counted with
    those of zeros that are put before and after the volume, ``around``.
    """
    from tvm import relax

    emit, operator = node.emit, relax.op
    if any(around):
        volume = emit(operator.nn.pad(volume, [0, 0, 0, 0, *around, 0, 0, 0, 0]))
    parts = [
        emit(operator.strided_slice(volume, [2], [s], [s + (planes - 1) * stride + 1], [stride]))
        for s in starts
    ]
    return as_images(node, emit(concatenated(node, parts, 1)))


def _finished(node: Node, result: Any) -> Any:
    """With the bias, in the type of the output."""
    from tvm import relax

    if node.has(2):
        bias = widened(node, node.inputs[2])
        spread = bound(node, along(bias, 1, len(node.shape())))
        result = node.emit(relax.op.add(result, spread))
    return cast(result, node.dtype())


def _direct(data: Any, weight: Any, windows: Windows, groups: int) -> Any:
    """A convolution with any number of spatial axes, as its definition says."""
    from tvm import te, tirx

    out, depth = int(weight.shape[0]), int(weight.shape[1])
    taps = [te.reduce_axis((0, extent), f"tap{a}") for a, extent in enumerate(windows.kernel)]
    channel = te.reduce_axis((0, depth), "channel")

    def element(n: Any, o: Any, *at: Any) -> Any:
        place = windows.place(at, taps)
        group = tirx.floordiv(o, out // groups)
        value = data(n, channel if groups == 1 else group * depth + channel, *place)
        inside = windows.inside(place)
        if inside is not None:
            value = tirx.if_then_else(inside, value, tirx.const(0, data.dtype))
        return te.sum(value * weight(o, channel, *taps), axis=[channel, *taps])

    return te.compute((data.shape[0], out, *windows.outputs), element, name="conv")


def _conv_transpose(node: Node) -> Any:
    data, weight = (widened(node, operand) for operand in node.inputs[:2])
    rank = len(node.shape()) - 2
    strides = list(node.attributes.get("strides", [1] * rank))
    weight = _spread(node, weight, list(node.attributes.get("dilations", [1] * rank)))
    natural = [
        (extent - 1) * stride + taps
        for extent, stride, taps in zip(
            node.shape()[2:], strides, shape_of(weight)[2:], strict=True
        )
    ]
    before = _cropped_before(node, natural)
    groups = int(node.attributes.get("group", 1))
    if rank == _VOLUME and groups == 1 and dtype_of(data) == "float32":
        return _finished(node, _transposed_by_planes(node, data, weight, strides, natural, before))
    if rank > _RELAX_RANK:
        gathered = partial(
            _gathered,
            strides=strides,
            before=before,
            outputs=node.outputs[0].shape[2:],
            groups=groups,
        )
        return _finished(node, node.compute(gathered, data, weight))
    return _finished(node, _transposed(node, data, weight, strides, natural, before, groups))


def _cropped_before(node: Node, natural: Sequence[int]) -> list[int]:
    """What is cut off before each axis of the whole result.

    ONNX, ConvTranspose: where the output's shape is given or follows from auto_pad, the pads do.
    """
    attributes, rank = node.attributes, len(natural)
    mode = attributes.get("auto_pad", "NOTSET")
    if "output_shape" not in attributes and not mode.startswith("SAME"):
        pads = [0] * rank if mode == "VALID" else list(attributes.get("pads", [0] * 2 * rank))
        if min(pads) < 0:
            raise node.unsupported("negative padding", "export the model with a Pad instead")
        return pads[:rank]
    extra = list(attributes.get("output_padding", [0] * rank))
    outputs = node.outputs[0].shape[2:]
    totals = [max(0, natural[a] + extra[a] - outputs[a]) for a in range(rank)]
    return [total // 2 if mode == "SAME_UPPER" else -(-total // 2) for total in totals]


def _transposed(
    node: Node,
    data: Any,
    weight: Any,
    strides: Sequence[int],
    natural: Sequence[int],
    before: Sequence[int],
    groups: int,
) -> Any:
    """By Relax's operator; what the output has beyond the whole result is the bias alone."""
    from tvm import relax

    rank = len(natural)
    outputs = node.outputs[0].shape[-rank:]
    after = [natural[a] - before[a] - outputs[a] for a in range(rank)]
    beyond = [max(0, -crop) for crop in after]
    if any(extent >= stride for extent, stride in zip(beyond, strides, strict=True)):
        raise node.unsupported("its output is larger by a stride or more than its data gives")
    layout, _, kernel_layout = _LAYOUTS[rank]
    return node.emit(
        getattr(relax.op.nn, f"conv{rank}d_transpose")(
            data,
            weight,
            list(strides),
            [*before, *(max(0, crop) for crop in after)],
            beyond,
            [1] * rank,
            groups,
            layout,
            kernel_layout,
        )
    )


def _transposed_by_planes(
    node: Node,
    data: Any,
    weight: Any,
    strides: Sequence[int],
    natural: Sequence[int],
    before: Sequence[int],
) -> Any:
    """A volume's transposed convolution as those of images, phase by phase along its depth.

    Output planes that leave the same remainder by the stride, a phase, see the same taps of the
    kernel, of neighbouring planes of the input: images whose channels are those of all these planes, one
    plane after the other. data [N, C, D, H, W], weight [C, O, taps, KH, KW].
    """
    from tvm import relax

    emit, operator = node.emit, relax.op
    batch, channels, depth = shape_of(data)[:3]
    _, out, taps, *kernel = shape_of(weight)
    stride, planes, *extents = strides[0], *node.outputs[0].shape[2:]
    count = -(-planes // stride)
    phases = []
    for phase in range(stride):
        first, tap = divmod(phase + before[0], stride)
        steps = len(range(tap, taps, stride))
        if steps == 0:
            phases.append(filled([batch, out, count, *extents], 0.0, dtype_of(data)))
            continue
        lower, upper = max(0, steps - 1 - first), max(0, first + count - depth)
        starts = [lower + first - step for step in range(steps)]
        images = _stacked(node, data, (lower, upper), starts, count)
        used = emit(operator.strided_slice(weight, [2], [tap], [taps], [stride]))
        flat = emit(operator.permute_dims(used, [2, 0, 1, 3, 4]))
        flat = emit(operator.reshape(flat, [steps * channels, out, *kernel]))
        made = _transposed(node, images, flat, strides[1:], natural[1:], before[1:], 1)
        phases.append(emit(as_volume(node, made, batch)))
    apart = [emit(operator.expand_dims(made, [3])) for made in phases]
    together = emit(concatenated(node, apart, 3))
    whole = emit(operator.reshape(together, [batch, out, count * stride, *extents]))
    return emit(operator.strided_slice(whole, [2], [0], [planes]))


def _spread(node: Node, weight: Any, dilations: Sequence[int]) -> Any:
    """A kernel with zeros between its taps, so that its own dilation is 1."""
    import numpy as np

    if all(dilation == 1 for dilation in dilations):
        return weight
    value = constant_of(weight)
    shape = shape_of(weight)
    extents = [(k - 1) * d + 1 for k, d in zip(shape[2:], dilations, strict=True)]
    if value is None:
        return node.compute(partial(_with_zeros, extents=extents, dilations=dilations), weight)
    spread = np.zeros((*shape[:2], *extents), value.dtype)
    spread[(slice(None), slice(None), *(slice(None, None, d) for d in dilations))] = value
    return constant(spread, dtype_of(weight))


def _with_zeros(weight: Any, extents: Sequence[int], dilations: Sequence[int]) -> Any:
    from tvm import te, tirx

    def element(i: Any, o: Any, *at: Any) -> Any:
        taps = [tirx.floordiv(a, d) for a, d in zip(at, dilations, strict=True)]
        is_tap = [tirx.floormod(a, d).equal(0) for a, d in zip(at, dilations, strict=True)]
        zero = tirx.const(0, weight.dtype)
        return tirx.Select(tirx.all(*is_tap), weight(i, o, *taps), zero)

    return te.compute((*weight.shape[:2], *extents), element, name="spread_taps")


def _gathered(
    data: Any,
    weight: Any,
    strides: Sequence[int],
    before: Sequence[int],
    outputs: Sequence[int],
    groups: int,
) -> Any:
    """A transposed convolution with any number of spatial axes, of a kernel [C, O / group, ...].

    Element y of an axis takes taps r, r + stride, ... of the inputs q, q - 1, ..., where
    y + before = q * stride + r: as a gather it meets no zeros.
    """
    from tvm import te, tirx

    batch, channels, *extents = (int(extent) for extent in data.shape)
    _, out, *taps = (int(extent) for extent in weight.shape)
    depth, axes = channels // groups, range(len(strides))
    steps = [te.reduce_axis((0, -(-taps[a] // strides[a])), f"step{a}") for a in axes]
    channel = te.reduce_axis((0, depth), "channel")

    def element(n: Any, o: Any, *at: Any) -> Any:
        tap = [tirx.floormod(at[a] + before[a], strides[a]) + steps[a] * strides[a] for a in axes]
        place = [tirx.floordiv(at[a] + before[a], strides[a]) - steps[a] for a in axes]
        inside = [tap[a] < taps[a] for a in axes]
        inside += [condition for a in axes for condition in (place[a] >= 0, place[a] < extents[a])]
        source = tirx.floordiv(o, out) * depth + channel
        term = data(n, source, *place) * weight(source, tirx.floormod(o, out), *tap)
        guarded = tirx.if_then_else(tirx.all(*inside), term, tirx.const(0, data.dtype))
        return te.sum(guarded, axis=[channel, *steps])

    return te.compute((batch, out * groups, *outputs), element, name="conv_transpose")


CONVERTERS: dict[str, Converter] = {"Conv": _conv, "ConvTranspose": _conv_transpose}

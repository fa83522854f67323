"""Operators that name axes: done in the order their operand has, with the axes renamed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgepack.compiler.layout.rewrite import Rewriter, Rule
from edgepack.compiler.layout.tensors import (
    Order,
    Tensor,
    channels_last,
    shape_of,
    significant,
    without_ones,
)


def _usual_order(tensors: Sequence[Tensor]) -> Order:
    """Channels last or ONNX's order, whichever moves fewer elements of tensors of one rank."""
    last, identity = channels_last(tensors[0].rank), tensors[0].identity
    moved_last = sum(tensor.cost(last) for tensor in tensors)
    moved_first = sum(tensor.cost(identity) for tensor in tensors)
    wanted = any(tensor.is_channels_last for tensor in tensors)
    return last if wanted and moved_last <= moved_first else identity


def _any_order(tensor: Tensor) -> Order:
    """An order the tensor exists in: a slice is moved more cheaply than the whole."""
    usual = _usual_order([tensor])
    return usual if tensor.has(usual) else tensor.orders()[0]


def _renamed(axes: Sequence[Any], order: Order) -> list[int]:
    """Where the axes of a tensor are when its elements are in ``order``."""
    return [order.index(int(axis) % len(order)) for axis in axes]


def _concat(rewriter: Rewriter, call: Any) -> Tensor | None:
    from tvm import relax

    tensors = rewriter.value(call.args[0])
    if not isinstance(tensors, list) or call.attrs.axis is None or not tensors[0].rank:
        return None
    order = _usual_order(tensors)
    (axis,) = _renamed([call.attrs.axis], order)
    result = relax.op.concat([tensor.at(order) for tensor in tensors], axis)
    return rewriter.made(call, order, result)


def _split(rewriter: Rewriter, call: Any) -> list[Tensor]:
    from tvm import ir, relax

    data, sections = rewriter.tensor(call.args[0]), call.attrs.indices_or_sections
    order = _any_order(data)
    (axis,) = _renamed([call.attrs.axis], order)
    count = getattr(sections, "value", sections)  # an IntImm: so many equal parts
    sections = int(count) if isinstance(count, int) else [int(place) for place in sections]
    parts = rewriter.emitter.emit(relax.op.split(data.at(order), sections, axis))
    return [
        rewriter.tensor_of(
            tuple(int(extent) for extent in field.shape),
            order,
            rewriter.emitter.emit(ir.TupleGetItem(parts, index)),
        )
        for index, field in enumerate(call.ty.fields)
    ]


def _strided_slice(rewriter: Rewriter, call: Any) -> Tensor:
    from tvm import ir, relax

    data = rewriter.tensor(call.args[0])
    steps = call.args[4].fields if len(call.args) > 4 else ()
    if data.shape == shape_of(call) and all(int(step) == 1 for step in steps):
        return data
    order = _any_order(data)
    axes = relax.Tuple([relax.prim_value(axis) for axis in _renamed(call.args[1].fields, order)])
    operands = [data.at(order), axes, *call.args[2:]]
    return rewriter.made(call, order, ir.Call(call.op, operands, call.attrs, call.ty_args))


def _reduction(rewriter: Rewriter, call: Any) -> Tensor | None:
    from tvm import relax

    attrs, data = call.attrs, rewriter.tensor(call.args[0])
    if attrs.axis is None or data.rank == 0:
        return None
    reduced = {int(axis) % data.rank for axis in attrs.axis}
    order = _usual_order([data])
    operand, axes = _seen_as_made(data, order, reduced)
    operator = getattr(relax.op, call.op.name.removeprefix("relax."))
    result = operator(operand, axis=axes, keepdims=bool(attrs.keepdims))
    return rewriter.made(call, _reduced(call, data, order, reduced), result)


def _seen_as_made(data: Tensor, order: Order, reduced: set[int]) -> tuple[Any, list[int]]:
    """An operand and its axes to reduce: in the shape it was made in, so that the two can be fused."""
    raw = data.raw(order)
    present = significant(order, data.shape)
    kept_whole = without_ones(shape_of(raw)) == tuple(data.shape[axis] for axis in present)
    if not kept_whole or not reduced <= set(present):
        return data.at(order), sorted(_renamed(sorted(reduced), order))
    places = [place for place, extent in enumerate(shape_of(raw)) if extent != 1]
    return raw, [place for place, axis in zip(places, present, strict=True) if axis in reduced]


def _arg_reduction(rewriter: Rewriter, call: Any) -> Tensor | None:
    from tvm import relax

    attrs, data = call.attrs, rewriter.tensor(call.args[0])
    if attrs.axis is None or data.rank == 0:
        return None
    reduced = int(attrs.axis) % data.rank
    order = _usual_order([data])
    operator = getattr(relax.op, call.op.name.removeprefix("relax."))
    result = operator(data.at(order), axis=order.index(reduced), keepdims=bool(attrs.keepdims))
    return rewriter.made(call, _reduced(call, data, order, {reduced}), result)


def _reduced(call: Any, data: Tensor, order: Order, reduced: set[int]) -> Order:
    """``order`` in terms of the axes that are left."""
    if call.attrs.keepdims:
        return order
    kept = [axis for axis in data.identity if axis not in reduced]
    return tuple(kept.index(axis) for axis in order if axis not in reduced)


def _along_axis(rewriter: Rewriter, call: Any) -> Tensor | None:
    from tvm import relax

    data = rewriter.tensor(call.args[0])
    if data.rank == 0:
        return None
    order = _usual_order([data])
    (axis,) = _renamed([call.attrs.axis], order)
    operator = relax.op
    for name in call.op.name.split(".")[1:]:
        operator = getattr(operator, name)
    others = [rewriter.original(operand) for operand in call.args[1:]]
    return rewriter.made(call, order, operator(data.at(order), *others, axis=axis))


def _pad(rewriter: Rewriter, call: Any) -> Tensor:
    from tvm import relax

    attrs, data = call.attrs, rewriter.tensor(call.args[0])
    order = _usual_order([data])
    widths = [int(width) for axis in order for width in attrs.pad_width[2 * axis : 2 * axis + 2]]
    result = relax.op.nn.pad(data.at(order), widths, attrs.pad_mode, attrs.pad_value)
    return rewriter.made(call, order, result)


def _broadcast_to(rewriter: Rewriter, call: Any) -> Tensor | None:
    from tvm import relax

    data, shape = rewriter.tensor(call.args[0]), shape_of(call)
    if data.rank != len(shape):
        return None
    if data.shape == shape:
        return data
    order = _usual_order([data])
    return rewriter.made(
        call, order, relax.op.broadcast_to(data.at(order), [shape[axis] for axis in order])
    )


def _grouped_norm(rewriter: Rewriter, call: Any) -> Tensor | None:
    """Normalisation over axes of the data, with a scale and an offset for each channel."""
    from tvm import relax

    attrs, data = call.attrs, rewriter.tensor(call.args[0])
    order = _usual_order([data])
    (channel,) = _renamed([attrs.channel_axis], order)
    options = {
        "channel_axis": channel,
        "axes": sorted(_renamed(attrs.axes, order)),
        "epsilon": float(attrs.epsilon),
        "center": bool(attrs.center),
        "scale": bool(attrs.scale),
    }
    scale, offset = (rewriter.original(operand) for operand in call.args[1:])
    if call.op.name == "relax.nn.group_norm":
        options["num_groups"] = int(attrs.num_groups)
        result = relax.op.nn.group_norm(data.at(order), scale, offset, **options)
    else:
        result = relax.op.nn.instance_norm(data.at(order), scale, offset, **options)
    return rewriter.made(call, order, result)


def _batch_norm(rewriter: Rewriter, call: Any) -> list[Tensor]:
    from tvm import ir, relax

    attrs, data = call.attrs, rewriter.tensor(call.args[0])
    order = _usual_order([data])
    (axis,) = _renamed([attrs.axis], order)
    result = rewriter.emitter.emit(
        relax.op.nn.batch_norm(
            data.at(order),
            *(rewriter.original(operand) for operand in call.args[1:]),
            axis=axis,
            epsilon=float(attrs.epsilon),
            center=bool(attrs.center),
            scale=bool(attrs.scale),
            momentum=float(attrs.momentum),
            training=bool(attrs.training),
        )
    )
    orders = [order, (0,), (0,)]
    return [
        rewriter.tensor_of(
            tuple(int(extent) for extent in field.shape),
            orders[index],
            rewriter.emitter.emit(ir.TupleGetItem(result, index)),
        )
        for index, field in enumerate(call.ty.fields)
    ]


_REDUCTIONS = "max mean min prod std sum variance"

RULES: dict[str, Rule] = {
    **dict.fromkeys(
        (f"relax.{name}" for name in _REDUCTIONS.split()),
        _reduction,
    ),
    **dict.fromkeys(("relax.argmax", "relax.argmin"), _arg_reduction),
    **dict.fromkeys(
        ("relax.nn.softmax", "relax.nn.log_softmax", "relax.nn.prelu", "relax.flip"), _along_axis
    ),
    "relax.concat": _concat,
    "relax.split": _split,
    "relax.strided_slice": _strided_slice,
    "relax.nn.pad": _pad,
    "relax.broadcast_to": _broadcast_to,
    "relax.nn.group_norm": _grouped_norm,
    "relax.nn.instance_norm": _grouped_norm,
    "relax.nn.batch_norm": _batch_norm,
}

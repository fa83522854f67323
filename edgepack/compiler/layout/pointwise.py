"""Operators that work on each element by itself: in whichever order most of their operands have.

They are also the operators that are fused into the one before. So the result takes the very shape
that the latest operand was made in, with axes of extent 1 that it may have more or less, and the
reshape that would keep the two apart comes after the chain.
"""

from __future__ import annotations

from typing import Any

from edgepack.compiler.layout.rewrite import Rewriter, Rule
from edgepack.compiler.layout.tensors import (
    Order,
    Shape,
    Tensor,
    channels_last,
    shape_of,
    significant,
    without_ones,
)


def _pointwise(rewriter: Rewriter, call: Any) -> Tensor | None:
    from tvm import ir

    shape = shape_of(call)
    operands = [rewriter.value(operand) for operand in call.args]
    tensors = [operand for operand in operands if isinstance(operand, Tensor)]
    whole = [tensor for tensor in tensors if tensor.shape == shape and not tensor.constant]
    order = _order(shape, tensors, whole)
    if not whole and order == tuple(range(len(shape))):
        return None
    target = _shape_of_result(rewriter, shape, order, whole)
    new = [
        _operand(operand, shape, order, target, drop_scalars=bool(whole))
        if isinstance(operand, Tensor)
        else operand
        for operand in operands
    ]
    return rewriter.made(call, order, ir.Call(call.op, new, call.attrs, call.ty_args))


def _order(shape: Shape, tensors: list[Tensor], whole: list[Tensor]) -> Order:
    """The order for which the fewest elements are moved; channels last if there are two."""
    last, identity = channels_last(len(shape)), tuple(range(len(shape)))
    candidates = {order: None for tensor in whole for order in tensor.orders()}
    if any(tensor.is_channels_last for tensor in tensors if tensor.rank == len(shape)):
        candidates[last] = None

    def cost(order: Order) -> tuple[int, bool, bool]:
        moved = sum(tensor.cost(_own(order, tensor, shape)) for tensor in tensors)
        return moved, order != last, order != identity

    return min([*candidates, identity], key=cost)


def _shape_of_result(rewriter: Rewriter, shape: Shape, order: Order, whole: list[Tensor]) -> Shape:
    """The shape in which the latest operand has been made, where that is nearly the tensor's own."""
    plain = tuple(shape[axis] for axis in order)
    made = [tensor.raw(order) for tensor in whole if tensor.has(order)]
    if not made:
        return plain
    target = shape_of(max(made, key=rewriter.emitter.position))
    # Only axes of extent 1 may differ: an operand that spreads could not follow another grouping,
    # and a reduction after this chain, which asks for its own axes, could not be fused with it.
    return target if without_ones(target) == without_ones(plain) else plain


def _operand(
    tensor: Tensor, shape: Shape, order: Order, target: Shape, *, drop_scalars: bool
) -> Any:
    """``tensor`` as it broadcasts to a result of shape ``target``, whose elements are in ``order``.

    ``drop_scalars``: a constant with one element needs no axes, as another operand has them all.
    """
    if tensor.shape == shape:
        return tensor.shaped(order, target)
    if tensor.rank == 0 or (drop_scalars and tensor.size == 1 and tensor.constant):
        return tensor.shaped(tensor.identity, ())
    if target == shape and order == tuple(range(len(shape))):
        return tensor.at(tensor.identity)
    missing = len(shape) - tensor.rank
    extents = iter(
        tensor.shape[axis - missing] if axis >= missing else 1 for axis in significant(order, shape)
    )
    spread = tuple(next(extents) if extent != 1 else 1 for extent in target)
    if tensor.size == 1:
        spread = (1,) * len(target)
    return tensor.shaped(_own(order, tensor, shape), spread)


def _own(order: Order, tensor: Tensor, shape: Shape) -> Order:
    """``order``, which is of axes of ``shape``, for the axes of a tensor that broadcasts to it."""
    missing = len(shape) - tensor.rank
    return tuple(axis - missing for axis in order if axis >= missing)


_NAMES = """
    abs acos acosh add asin asinh astype atan atan2 atanh bitwise_and bitwise_not bitwise_or
    bitwise_xor ceil clip cos cosh divide equal erf ewise_fma exp floor floor_divide floor_mod
    greater greater_equal isfinite isinf isnan left_shift less less_equal log log_add_exp
    logical_and logical_not logical_or logical_xor maximum minimum mod multiply negative not_equal
    power right_shift round rsqrt sigmoid sign sin sinh sqrt square subtract tan tanh trunc where
    nn.gelu nn.gelu_tanh nn.leakyrelu nn.relu nn.selu nn.silu nn.softplus
"""

RULES: dict[str, Rule] = {f"relax.{name}": _pointwise for name in _NAMES.split()}

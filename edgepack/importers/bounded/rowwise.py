"""Operators that work on each row alone: sizes pass through them, and so does padding."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from edgepack.importers.bounded.nodes import attribute
from edgepack.importers.bounded.sizes import Size, fixed
from edgepack.importers.bounded.tensors import Tensor
from edgepack.importers.bounded.walk import Rule, Walk
from edgepack.importers.passes.branches import SELECT_PREFIX

if TYPE_CHECKING:
    import onnx

ONE = fixed(1)


def broadcast(walk: Walk, node: onnx.NodeProto, tensors: Sequence[Tensor]) -> list[Size]:
    """The sizes of an elementwise result. Raises ModelError where they agree only by chance."""
    rank = max(tensor.rank for tensor in tensors)
    sizes = []
    for axis in range(-rank, 0):
        found = {tensor.sizes[axis] for tensor in tensors if tensor.rank >= -axis} - {ONE}
        if len(found) > 1:
            if all(size.is_fixed for size in found):
                raise walk.refuse(node, "its operands have different shapes")
            raise walk.refuse(
                node, f"axis {axis} of its operands has sizes that need not be the same"
            )
        sizes.append(found.pop() if found else ONE)
    return sizes


def elementwise(walk: Walk, node: onnx.NodeProto) -> None:
    """One element of the result out of one of each operand."""
    tensors = [walk.tensor(name) for name in node.input if name]
    if node.name.startswith(SELECT_PREFIX) and tensors[1].sizes != tensors[2].sizes:
        raise walk.refuse(node, "its two sides have different numbers of rows")
    sizes = broadcast(walk, node, tensors)
    if node.op_type in ("Div", "Mod") and tensors[1].padded and tensors[1].dtype.kind in "iu":
        # Padding is mostly zero, and processors trap where they divide integers by it.
        node.input[1] = walk.masked(node.input[1], tensors[1].padded, 1)
    walk.keep(node, *[sizes] * len(node.output))


def _like_the_first(walk: Walk, node: onnx.NodeProto) -> None:
    """The result has the shape of the first operand, whatever the others have."""
    walk.keep(node, walk.tensor(node.input[0]).sizes)


def _transpose(walk: Walk, node: onnx.NodeProto) -> None:
    given = walk.tensor(node.input[0])
    order = attribute(node, "perm", list(reversed(range(given.rank))))
    walk.keep(node, [given.sizes[axis] for axis in order])


def batch(*operands: int) -> Rule:
    """A rule for operators that work on each entry of the first axis of these operands alone.

    The other operands are the same for all entries.
    """

    def rule(walk: Walk, node: onnx.NodeProto) -> None:
        if attribute(node, "training_mode", 0):
            raise walk.refuse(node, "it takes means over all of them")
        sizes = set()
        for i, name in enumerate(node.input):
            padded = walk.tensor(name).padded if name else []
            if set(padded) - ({0} if i in operands else set()):
                raise walk.refuse(node, f"input {i} has it along axis {max(padded)}")
            if i in operands and name:
                sizes.add(walk.tensor(name).sizes[0])
        if len(sizes) != 1:
            raise walk.refuse(node, "its inputs have different numbers of rows")
        size = sizes.pop()
        shapes = walk.shapes_of(node)
        if any(shape and shape[0] != size.most for shape in shapes):
            raise walk.refuse(node, "it changes their number")
        walk.keep(node, *[[size, *map(fixed, shape[1:])] if shape else [] for shape in shapes])

    return rule


def along(default: int, *, flattens_before: int = 0, to_the_end: bool = False) -> Rule:
    """A rule for operators that mix the elements of one axis, or of that and all axes after it.

    ``flattens_before``: older opsets mix that axis and all after it.
    """

    def rule(walk: Walk, node: onnx.NodeProto) -> None:
        given = walk.tensor(node.input[0])
        older = walk.opset < flattens_before
        axis = attribute(node, "axis", 1 if older else default) % max(given.rank, 1)
        mixed = range(axis, given.rank) if older or to_the_end else [axis]
        if set(given.padded) & set(mixed):
            raise walk.refuse(node, f"it mixes the elements of axis {axis}")
        _only_first_is_padded(walk, node)
        shapes = walk.shapes_of(node)
        walk.keep(node, *[_outer(given.sizes, shape) for shape in shapes])

    return rule


def _outer(sizes: Sequence[Size], shape: Sequence[int]) -> list[Size]:
    """``sizes`` of the axes that kept their extent: the others are not padded."""
    pairs = zip(sizes, shape, strict=True)
    return [size if size.most == extent else fixed(extent) for size, extent in pairs]


def _only_first_is_padded(walk: Walk, node: onnx.NodeProto) -> None:
    if any(name and walk.tensor(name).padded for name in node.input[1:]):
        raise walk.refuse(node, "its parameters depend on it")


def _softmax(walk: Walk, node: onnx.NodeProto) -> None:
    """Over rows whose number depends on data: what follows them weighs nothing."""
    import numpy as np

    given = walk.tensor(node.input[0])
    axis = attribute(node, "axis", -1) % max(given.rank, 1)
    if walk.opset >= _SOFTMAX_OF_ONE_AXIS and axis in given.padded:
        # Not minus infinity: where there is no row at all that would give NaN.
        lowest = np.finfo(given.dtype).min
        node.input[0] = walk.masked(node.input[0], [axis], lowest)
        walk.keep(node, given.sizes)
        return
    along(-1, flattens_before=_SOFTMAX_OF_ONE_AXIS)(walk, node)


_SOFTMAX_OF_ONE_AXIS = 13


def _quantise(walk: Walk, node: onnx.NodeProto) -> None:
    given = walk.tensor(node.input[0])
    _only_first_is_padded(walk, node)
    if attribute(node, "block_size", 0):
        axis = attribute(node, "axis", 1) % max(given.rank, 1)
        if axis in given.padded:
            raise walk.refuse(node, f"it mixes the elements of axis {axis}")
    walk.keep(node, given.sizes)


def _mat_mul(walk: Walk, node: onnx.NodeProto) -> None:
    """Rows of the first and columns of the second pass; a padded axis between them is masked."""
    a, b = (walk.tensor(name) for name in node.input[:2])
    if a.rank < 2 or b.rank < 2:
        raise walk.refuse(node, "one of its operands is a vector")
    if any(name and walk.tensor(name).padded for name in node.input[2:]):
        raise walk.refuse(node, "its parameters depend on it")
    if a.sizes[-1] != b.sizes[-2]:
        raise walk.refuse(node, "its operands have different numbers of rows")
    if not a.sizes[-1].is_fixed:
        if node.op_type != "MatMul":
            raise walk.refuse(node, "it sums over them")
        node.input[0] = walk.masked(node.input[0], [a.rank - 1], 0)
        node.input[1] = walk.masked(node.input[1], [b.rank - 2], 0)
    outer = [Tensor(element=t.element, sizes=t.sizes[:-2]) for t in (a, b)]
    sizes = broadcast(walk, node, outer) if max(a.rank, b.rank) > 2 else []
    walk.keep(node, [*sizes, a.sizes[-2], b.sizes[-1]])


def _gemm(walk: Walk, node: onnx.NodeProto) -> None:
    a, b = (walk.tensor(name) for name in node.input[:2])
    turned = [bool(attribute(node, name, 0)) for name in ("transA", "transB")]
    inner_a, inner_b = (0 if turned[0] else 1), (1 if turned[1] else 0)
    if a.sizes[inner_a] != b.sizes[inner_b]:
        raise walk.refuse(node, "its operands have different numbers of rows")
    if not a.sizes[inner_a].is_fixed:
        node.input[0] = walk.masked(node.input[0], [inner_a], 0)
        node.input[1] = walk.masked(node.input[1], [inner_b], 0)
    sizes = [a.sizes[1 - inner_a], b.sizes[1 - inner_b]]
    if len(node.input) > 2 and node.input[2]:
        result = Tensor(element=a.element, sizes=tuple(sizes))
        if broadcast(walk, node, [result, walk.tensor(node.input[2])]) != sizes:
            raise walk.refuse(node, "its operands have different numbers of rows")
    walk.keep(node, sizes)


def _one_hot(walk: Walk, node: onnx.NodeProto) -> None:
    given = walk.tensor(node.input[0])
    axis = attribute(node, "axis", -1) % (given.rank + 1)
    depth = walk.shapes_of(node)[0][axis]
    walk.keep(node, [*given.sizes[:axis], fixed(depth), *given.sizes[axis:]])


def _cumulative(walk: Walk, node: onnx.NodeProto) -> None:
    """Sums and products up to each row; from the end only once padding adds nothing."""
    given = walk.tensor(node.input[0])
    axes = walk.numbers(node.input[1])
    if axes is None:
        raise walk.refuse(node, "its axis depends on data")
    axis = axes[0] % given.rank
    if axis in given.padded and attribute(node, "reverse", 0):
        neutral = 0 if node.op_type == "CumSum" else 1
        node.input[0] = walk.masked(node.input[0], [axis], neutral)
    walk.keep(node, given.sizes)


def _table(names: Iterable[str], rule: Rule) -> dict[str, Rule]:
    return dict.fromkeys(names, rule)


_ELEMENTWISE = (
    "Abs", "Acos", "Acosh", "Add", "And", "Asin", "Asinh", "Atan", "Atanh", "BitShift",
    "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "Cast", "Ceil", "Celu", "Clip",
    "Cos", "Cosh", "Div", "Dropout", "Elu", "Equal", "Erf", "Exp", "Floor", "Gelu", "Greater",
    "GreaterOrEqual", "HardSigmoid", "HardSwish", "Identity", "IsInf", "IsNaN", "LeakyRelu",
    "Less", "LessOrEqual", "Log", "Max", "Mean", "Min", "Mish", "Mod", "Mul", "Neg", "Not",
    "Or", "PRelu", "Pow", "Reciprocal", "Relu", "Round", "RoundTo", "Selu", "Shrink", "Sigmoid",
    "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Sub", "Sum", "Swish", "Tan", "Tanh",
    "ThresholdedRelu", "Where", "Xor",
)  # fmt: skip
_BATCH = (
    "AveragePool", "BatchNormalization", "Conv", "ConvInteger", "ConvTranspose", "DepthToSpace",
    "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "InstanceNormalization", "LRN",
    "LpPool", "MaxPool", "QLinearConv", "Resize", "SpaceToDepth",
)  # fmt: skip

RULES: dict[str, Rule] = {
    **_table(_ELEMENTWISE, elementwise),
    **_table(_BATCH, batch(0)),
    "CastLike": _like_the_first,
    "CumProd": _cumulative,
    "CumSum": _cumulative,
    "DequantizeLinear": _quantise,
    "Gemm": _gemm,
    "GridSample": batch(0, 1),
    "Hardmax": along(-1, flattens_before=_SOFTMAX_OF_ONE_AXIS),
    "LayerNormalization": along(-1, to_the_end=True),
    "LogSoftmax": along(-1, flattens_before=_SOFTMAX_OF_ONE_AXIS),
    "LpNormalization": along(-1),
    "MatMul": _mat_mul,
    "MatMulInteger": _mat_mul,
    "OneHot": _one_hot,
    "QuantizeLinear": _quantise,
    "RMSNormalization": along(-1, to_the_end=True),
    "RoiAlign": batch(1, 2),
    "Softmax": _softmax,
    "Transpose": _transpose,
}
"""By operator of ONNX's own domain."""

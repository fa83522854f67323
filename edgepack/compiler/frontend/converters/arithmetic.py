"""Arithmetic on two numbers and more, of every type that ONNX allows.

Nothing that a request holds may stop the worker: the processor traps integer division by zero, and of
the smallest number by -1, so both are kept from it. ONNX leaves x / 0 undefined; here it is 0.
"""

from __future__ import annotations

from functools import reduce
from typing import Any

from edgepack.compiler.frontend.converters.formulas import elementwise, number
from edgepack.compiler.frontend.converters.values import cast, widened
from edgepack.compiler.frontend.node import Converter, Node, constant, constant_of, dtype_of

DOMAIN = ""

_EXPONENT_BITS = 6
"""Of an integer power: beyond 63, bases other than 0, 1 and -1 have left every type's range."""


def _is_integer(dtype: str) -> bool:
    return dtype.startswith(("int", "uint"))


def _divide(node: Node) -> Any:
    return divided(node, *node.inputs)


def divided(node: Node, left: Any, right: Any) -> Any:
    """The quotient, of integers towards zero."""
    from tvm import relax

    if not _is_integer(dtype_of(left)):
        return relax.op.divide(left, right)
    return elementwise(node, _quotient, left, right)


def _quotient(a: Any, b: Any) -> Any:
    """Towards zero."""
    from tvm import tirx

    if _signed(a):
        result = tirx.truncdiv(a, _safe_divisor(b))
        result = tirx.Select(b == number(-1, b), number(0, a) - a, result)
    else:
        result = tirx.truncdiv(a, _safe_divisor(b))
    return tirx.Select(b == number(0, b), number(0, a), result)


def _safe_divisor(b: Any) -> Any:
    """``b``, or 1 in place of what the processor traps."""
    from tvm import tirx

    trapped = b == number(0, b)
    if _signed(b):
        trapped = tirx.any(trapped, b == number(-1, b))
    return tirx.Select(trapped, number(1, b), b)


def _signed(a: Any) -> bool:
    return str(a.ty.dtype).startswith("int")


def _modulo(node: Node) -> Any:
    """The remainder: of the dividend's sign with ``fmod``, else of the divisor's."""
    from tvm import relax

    left, right = node.inputs
    truncated = bool(node.attributes.get("fmod", 0))
    if _is_integer(node.dtype()):
        remainder = _truncated_remainder if truncated else _floored_remainder
        return elementwise(node, remainder, left, right)
    left, right = widened(node, left), widened(node, right)
    if truncated:
        return cast(node.emit(relax.op.mod(left, right)), node.dtype())
    return cast(elementwise(node, _floored_float_remainder, left, right), node.dtype())


def _truncated_remainder(a: Any, b: Any) -> Any:
    """C's; 0 where the divisor is 0, and for -1 as well, whose remainder it is."""
    from tvm import tirx

    return tirx.truncmod(a, _safe_divisor(b))


def _floored_remainder(a: Any, b: Any) -> Any:
    from tvm import tirx

    remainder = tirx.truncmod(a, _safe_divisor(b))
    if not _signed(a):
        return remainder
    zero = number(0, a)
    opposite = tirx.all(remainder != zero, tirx.bitwise_xor(remainder, b) < zero)
    return tirx.Select(opposite, remainder + b, remainder)


def _floored_float_remainder(a: Any, b: Any) -> Any:
    """As Python's: an infinite divisor of the other sign gives itself, a remainder of 0 has its sign."""
    from tvm import tirx

    zero = number(0, a)
    remainder = tirx.truncmod(a, b)
    opposite = (remainder < zero) != (b < zero)
    shifted = tirx.Select(opposite, remainder + b, remainder)
    signed_zero = tirx.Select(b < zero, number(-0.0, a), zero)
    return tirx.Select(remainder == zero, signed_zero, shifted)


def _power(node: Node) -> Any:
    """Base to the exponent, in the base's type."""
    from tvm import relax

    base, exponent = node.inputs
    dtype, kind = node.dtype(0), node.dtype(1)
    if _is_integer(dtype) and _is_integer(kind):
        return _integer_power(node)
    if _is_integer(dtype):
        whole = node.emit(
            relax.op.power(_as(node, base, "float64"), _as(node, exponent, "float64"))
        )
        return relax.op.astype(whole, dtype)
    base = widened(node, base)
    result = node.emit(relax.op.power(base, _as(node, exponent, dtype_of(base))))
    return cast(result, dtype)


def _as(node: Node, expression: Any, dtype: str) -> Any:
    value = constant_of(expression)
    if value is not None:
        return constant(value.astype(dtype), dtype)
    found = cast(expression, dtype)
    return found if found is expression else node.emit(found)


def _integer_power(node: Node) -> Any:
    """By repeated squaring; with a negative exponent the fraction is cut off."""
    from tvm import relax

    base, exponent = node.inputs
    fixed = node.constant(1)
    if fixed is not None and fixed.size == 1 and fixed.item() in (1, 2, 3):
        shape = node.outputs[0].shape
        whole = base if node.shape() == shape else node.emit(relax.op.broadcast_to(base, shape))
        square = whole if fixed.item() == 1 else node.emit(relax.op.multiply(whole, whole))
        return square if fixed.item() < 3 else relax.op.multiply(square, whole)
    return elementwise(node, _repeated_squaring, base, _as(node, exponent, node.dtype()))


def _repeated_squaring(base: Any, exponent: Any) -> Any:
    from tvm import tirx

    zero, one = number(0, base), number(1, base)
    # What is left of a large exponent is whether it is odd.
    odd = tirx.bitwise_and(exponent, one)
    last = (1 << _EXPONENT_BITS) - 1
    beyond = exponent > number(last, base)
    short = tirx.Select(beyond, odd + number(last - 1, base), exponent)
    power, square = one, base
    for bit in range(_EXPONENT_BITS):
        taken = tirx.bitwise_and(tirx.shift_right(short, number(bit, base)), one)
        power = power * tirx.Select(taken == one, square, one)
        square = square * square
    if not _signed(base):
        return power
    unit = tirx.Select(tirx.any(base == one, odd == one), base, one)
    inverse = tirx.Select(tirx.any(base == one, base == number(-1, base)), unit, zero)
    return tirx.Select(exponent < zero, inverse, power)


def _over_all(operator: str) -> Converter:
    """Max, Min and Sum of one tensor or more."""

    def convert(node: Node) -> Any:
        from tvm import relax

        combine = getattr(relax.op, operator)
        return reduce(lambda total, x: node.emit(combine(total, x)), node.inputs)

    return convert


def _mean(node: Node) -> Any:
    from tvm import relax

    tensors = [widened(node, x) for x in node.inputs]
    total = reduce(lambda total, x: node.emit(relax.op.add(total, x)), tensors)
    if len(tensors) == 1:
        return node.inputs[0]
    mean = node.emit(relax.op.divide(total, constant(len(tensors), dtype_of(total))))
    return cast(mean, node.dtype())


def _bit_shift(node: Node) -> Any:
    """By less than 0, or as many bits as the type has or more, only copies of the sign are left."""
    left = node.attributes["direction"] == "LEFT"
    last = int(node.dtype().removeprefix("uint").removeprefix("int")) - 1

    def shifted(a: Any, by: Any) -> Any:
        from tvm import tirx

        inside = by <= number(last, by)
        if _signed(by):
            inside = tirx.all(inside, by >= number(0, by))
        distance = tirx.Select(inside, by, number(last, by))
        if not left and _signed(a):
            return tirx.shift_right(a, distance)
        result = tirx.shift_left(a, distance) if left else tirx.shift_right(a, distance)
        return tirx.Select(inside, result, number(0, a))

    return elementwise(node, shifted, *node.inputs)


def _bitwise_not(node: Node) -> Any:
    from tvm import relax

    dtype = node.dtype()
    ones = -1 if dtype.startswith("int") else (1 << int(dtype.removeprefix("uint"))) - 1
    return relax.op.bitwise_xor(node.inputs[0], constant(ones, dtype))


_COMBINED = {"Max": "maximum", "Min": "minimum", "Sum": "add"}

CONVERTERS: dict[str, Converter] = {
    **{operator: _over_all(name) for operator, name in _COMBINED.items()},
    "BitShift": _bit_shift,
    "BitwiseNot": _bitwise_not,
    "Div": _divide,
    "Mean": _mean,
    "Mod": _modulo,
    "Pow": _power,
}

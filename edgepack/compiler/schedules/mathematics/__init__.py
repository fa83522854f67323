"""exp, tanh, sin and their kin as arithmetic that LLVM turns into vector instructions.

TVM lowers them to calls of libm, one element at a time, and a call keeps a loop from becoming a
vector loop. The functions here take a float32 TIR expression, scalar or vector, and return one made
of additions, multiplications, comparisons, selections and integer operations on the bits. For other
element types they return None: leave the call as it is.

The errors stated here are relative, for float32 arithmetic with fused multiply-adds and without. NaN
gives NaN everywhere. Subnormal results may be 0.

Coefficients are minimax fits of the relative error, by Lawson's iteration (least squares whose
weights follow the error; C. L. Lawson, 1961) on Chebyshev nodes. The lowest one is then rounded to
float32, the others are fitted again, and so on up. Quotients are linearised with the denominator of
the step before (C. K. Sanathanan and J. Koerner, 1963). exp and log reduce their argument as in
W. J. Cody and W. Waite, Software Manual for the Elementary Functions, 1980.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

from edgepack.compiler.schedules.mathematics.inverse import acos, asin, atan, nearbyint
from edgepack.compiler.schedules.mathematics.terms import (
    LARGEST_TO_DIVIDE_BY,
    bits_of,
    constant,
    divided,
    dtype,
    fixed_value,
    float_of,
    integer,
    is_division_slow,
    is_positive,
    is_taken,
    let,
    polynomial,
    reciprocal,
)
from edgepack.compiler.schedules.mathematics.trigonometry import cos, sin, tan

# ln 2 in two: the first has 16 bits, so that its product with an exponent of 8 bits is exact.
_LN2_HIGH = 0.693145751953125
_LN2_LOW = 1.4286068e-06

# exp(r) for r in [0, ln 2], to 8.3e-8. The first is 1, so that exp(0) is.
_EXP = (1.0, 1.000006, 0.49987084, 0.1675549, 0.039062645, 0.011669377)

# (log(1 + f) - f) / f^2 for f in [sqrt(1/2) - 1, sqrt(2) - 1], to 1.8e-7 of log(1 + f).
_LOG = (
    *(-0.5000032, 0.33334714, -0.24971287, 0.1990692),
    *(-0.17242663, 0.16180108, -0.10083508),
)

# log(1 + u) / u for u in [0, 1], to 3.4e-8.
_LOG1P = (
    *(1.0, -0.49999648, 0.3332133, -0.24857217, 0.19153848),
    *(-0.13754188, 0.07920883, -0.0300683, 0.0053654225),
)

# tanh(x) / x as a quotient in x^2 for x in [0, 7.9], to 1.9e-8; from there on 1 - 2.8e-7.
_TANH_END = 7.9
_TANH = (
    (1.0, 0.12987278, 0.0029946, 9.9612671e-06, -1.4970039e-08, 2.4264261e-11),
    (1.0, 0.46320602, 0.024063455, 2.3842746e-04),
)

# erf(x) / x likewise for x in [0, 3.63], to 5.4e-8; from there on 1 - 2.8e-7.
_ERF_END = 3.63
_ERF = (
    (1.1283791, 0.21246606, 0.05490217, 0.0045374506, 2.6959888e-04, 1.4111367e-06),
    (1.0, 0.5216248, 0.12253927, 0.016497551, 0.001292249, 3.0791718e-05),
)

# Adding it to |v| < 2^22 rounds v to an integer (the float's last bit counts ones) and leaves the
# integer plus 127, the bias of float32's exponent, in the low bits. roundps and frintn would do as
# well, but armv7 has no such instruction.
_ROUND_AND_BIAS = 1.5 * 2**23 + 127

_SMALLEST_NORMAL = 2.0**-126
_BITS_OF_SQRT_HALF = 0x3F3504F3
_MANTISSA_BITS = 23


def exp(x: Any) -> Any | None:
    """e^x to 2e-7; 0 below -87.34, inf above 88.73, 1 at 0."""
    return _exp(x, negated=False) if is_taken(x) else None


def sigmoid(x: Any) -> Any | None:
    """1 / (1 + e^-x) to 3e-7, also where it is small: it reaches 0 below -88.73."""
    if not is_taken(x):
        return None
    one = constant(1.0, x)
    below = one + _exp(x, negated=True)
    return let(below, _reciprocal_or_0) if is_division_slow() else one / below


def tanh(x: Any) -> Any | None:
    """Tanh to 4e-7, never beyond 1 in magnitude; x itself where x is tiny."""
    return _odd_quotient(x, _TANH_END, *_TANH) if is_taken(x) else None


def erf(x: Any) -> Any | None:
    """The error function to 4.5e-7, never beyond 1 in magnitude."""
    return _odd_quotient(x, _ERF_END, *_ERF) if is_taken(x) else None


def log(x: Any) -> Any | None:
    """Natural logarithm to 3e-7, of subnormals too; -inf at 0, NaN below, inf at inf."""
    from tvm import tirx

    if not is_taken(x):
        return None

    def whole(x: Any) -> Any:
        zero, infinity = constant(0.0, x), constant(math.inf, x)
        outside = tirx.Select(x.equal(zero), -infinity, constant(math.nan, x))
        inside = tirx.Select(x < infinity, _finite_log(x), x)
        return tirx.Select(x > zero, inside, outside)

    return let(x, whole)


def softplus(x: Any) -> Any | None:
    """log(1 + e^x) to 3e-7, without overflow; 0 below -87.34."""
    from tvm import tirx

    if not is_taken(x):
        return None

    def whole(x: Any) -> Any:
        small = _exp(tirx.min(x, -x), negated=False)
        return let(small, lambda u: tirx.max(constant(0.0, x), x) + u * polynomial(u, _LOG1P))

    return let(x, whole)


def rsqrt(x: Any) -> Any | None:
    """1 / sqrt(x): both are vector instructions (on armv7, scalar ones; never a call)."""
    from tvm import tirx

    return constant(1.0, x) / tirx.sqrt(x) if is_taken(x) else None


def power(base: Any, exponent: Any) -> Any | None:
    """base^exponent where arithmetic gives what libm gives; None elsewhere.

    Exponents 1/2, -1/2 and whole ones up to 4 become roots and products. Others need to be fixed and no
    integer (a negative base then gives NaN, as in libm), or a base that is positive by its form (a
    maximum with a positive constant, or one plus a square): then it is e^(exponent log base), with an
    error of 4e-7 for each unit of exponent log base. Of -inf that is NaN, where libm gives inf or 0.
    """
    from tvm import tirx

    if not is_taken(base) or not is_taken(exponent):
        return None
    fixed = fixed_value(exponent)
    if fixed is not None and abs(fixed) in (0.5, 1.0, 2.0, 3.0, 4.0):
        root = tirx.sqrt(base) if abs(fixed) == 0.5 else let(base, _product(int(abs(fixed))))
        return root if fixed > 0 else constant(1.0, base) / root
    if is_positive(base) or (fixed is not None and not fixed.is_integer()):
        return exp(exponent * log(base))
    return None


REPLACEMENTS: dict[str, Callable[..., Any | None]] = {
    "tirx.exp": exp,
    "tirx.sigmoid": sigmoid,
    "tirx.tanh": tanh,
    "tirx.erf": erf,
    "tirx.log": log,
    "tirx.rsqrt": rsqrt,
    "tirx.pow": power,
    "tirx.sin": sin,
    "tirx.cos": cos,
    "tirx.tan": tan,
    "tirx.asin": asin,
    "tirx.acos": acos,
    "tirx.atan": atan,
    "tirx.nearbyint": nearbyint,
}
"""By the operator of a TIR call: what takes the call's arguments and returns the expression."""


def _exp(x: Any, *, negated: bool) -> Any:
    """e^x or e^-x = 2^n e^r, n the floor of x / ln 2; signs go into constants, which costs nothing.

    The exponent field n + 127 reaches 0 and 255 at the ends, so 2^n is itself 0 or infinite there:
    rounding down instead of to nearest makes those the ends of float32's range, and nothing has to
    be selected. 1 / ln 2 is a little too small and the half that is subtracted too, by less than
    2e-5 in all, so that rounding can neither lose the largest numbers nor 0.
    """
    from tvm import tirx

    sign = -1.0 if negated else 1.0
    low, high = sorted((-88.0 * sign, 89.0 * sign))
    # The constant first: LLVM's comparison with NaN is false and then takes the second.
    clamped = tirx.max(constant(low, x), tirx.min(constant(high, x), x))

    def scaled(x: Any) -> Any:
        biased = x * constant(sign * 1.4426949, x) - constant(0.49999, x)
        return let(biased + constant(_ROUND_AND_BIAS, x), lambda rounded: power_of(x, rounded))

    def power_of(x: Any, rounded: Any) -> Any:
        two_to_n = float_of(bits_of(rounded) << integer(_MANTISSA_BITS, x))
        n = rounded - constant(_ROUND_AND_BIAS, x)
        return let(n, lambda n: let(rest(x, n), lambda r: polynomial(r, _EXP) * two_to_n))

    def rest(x: Any, n: Any) -> Any:
        high = n * constant(-_LN2_HIGH, x)
        return (high - x if negated else high + x) - n * constant(_LN2_LOW, x)

    return let(clamped, scaled)


def _finite_log(x: Any) -> Any:
    """Log of a positive finite x = 2^e m, m from sqrt(1/2) to sqrt(2).

    Subtracting the bits of sqrt(1/2) makes the exponent field count from there.
    """
    from tvm import tirx

    subnormal = x < constant(_SMALLEST_NORMAL, x)
    normal = tirx.Select(subnormal, x * constant(2.0**_MANTISSA_BITS, x), x)
    scale = tirx.Select(subnormal, constant(-float(_MANTISSA_BITS), x), constant(0.0, x))

    def split(bits: Any) -> Any:
        above = bits - integer(_BITS_OF_SQRT_HALF, x)
        return let(above, lambda above: join(bits, above))

    def join(bits: Any, above: Any) -> Any:
        shift = integer(_MANTISSA_BITS, x)
        exponent = (above >> shift).astype(dtype(x)) + scale
        mantissa = float_of(bits - tirx.bitwise_and(above, integer(-1 << _MANTISSA_BITS, x)))
        fraction = mantissa - constant(1.0, x)
        return let(exponent, lambda e: let(fraction, lambda f: total(e, f)))

    def total(e: Any, f: Any) -> Any:
        small = f * f * polynomial(f, _LOG) + e * constant(_LN2_LOW, x)
        return (small + f) + e * constant(_LN2_HIGH, x)

    return let(bits_of(normal), split)


def _odd_quotient(x: Any, end: float, above: Sequence[float], below: Sequence[float]) -> Any:
    """X P(x^2) / Q(x^2), with x held within ``end`` of 0."""
    from tvm import tirx

    clamped = tirx.max(constant(-end, x), tirx.min(constant(end, x), x))

    def quotient(x: Any) -> Any:
        return let(x * x, lambda t: divided(x * polynomial(t, above), polynomial(t, below)))

    return let(clamped, quotient)


def _reciprocal_or_0(x: Any) -> Any:
    """1 / x for x >= 1, infinity included."""
    from tvm import tirx

    inverse = reciprocal(x)
    return tirx.Select(x > constant(LARGEST_TO_DIVIDE_BY, x), constant(0.0, x), inverse)


def _product(count: int) -> Callable[[Any], Any]:
    return lambda x: functools.reduce(lambda product, factor: product * factor, [x] * count)

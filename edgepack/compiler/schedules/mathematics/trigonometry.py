"""sin, cos and tan as arithmetic that LLVM turns into vector instructions.

The argument is reduced to [-pi/4, pi/4] in float64: pi/2 in two, of which the first has 33 bits, so that
its product with a count of quarter turns is exact up to 2^20 of them (W. J. Cody and W. Waite, Software
Manual for the Elementary Functions, 1980). The polynomials are fitted as the package's others are.

Errors are absolute and hold for |x| <= 2^28, where neighbouring floats are 32 apart. Beyond, the result
is some number of magnitude 1 or less (tan: any); NaN and infinities give NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from edgepack.compiler.schedules.mathematics.terms import (
    bits_of,
    constant,
    dtype,
    float_of,
    integer,
    is_taken,
    let,
    odd_polynomial,
    polynomial,
)

_HALF_PI_HIGH = 1.5707963267341256
"""The first 33 bits of pi / 2."""
_HALF_PI_LOW = 6.077100506506192e-11

_FURTHEST = 2.0**28
"""Its quarter turns can be counted in 32 bits."""

_ROUND = 1.5 * 2**52
"""Adding it to a float64 below 2^51 in magnitude rounds that; the last bits count ones."""

# (sin(r) - r) / r^3 in r^2 for r in [0, pi/4], to 4e-9 of sin(r).
_SIN = (-0.16666655, 0.008332189, -0.00019518286)

# (cos(r) - 1 + r^2 / 2) / r^4 likewise, to 1.2e-10.
_COS = (0.041666646, -0.001388731, 2.4432327e-05)


def sin(x: Any) -> Any | None:
    """The sine, to 1.5e-7."""
    return _reduced(x, lambda r, quarter: _turned(r, quarter)) if is_taken(x) else None


def cos(x: Any) -> Any | None:
    """The cosine, to 1.5e-7."""
    if not is_taken(x):
        return None
    return _reduced(x, lambda r, quarter: _turned(r, quarter + integer(1, x)))


def tan(x: Any) -> Any | None:
    """The tangent; its sine and cosine to 1.5e-7."""
    if not is_taken(x):
        return None
    return _reduced(x, lambda r, quarter: _turned(r, quarter) / _turned(r, quarter + integer(1, x)))


def _reduced(x: Any, body: Callable[[Any, Any], Any]) -> Any:
    """``body(what is left of x, quarter turns taken off)``; NaN where ``x`` is not finite."""
    from tvm import tirx

    single = str(dtype(x))
    double, whole = (single.replace("float32", name) for name in ("float64", "int64"))
    end = constant(_FURTHEST, x)

    def split(x: Any, wide: Any) -> Any:
        turns = wide * tirx.const(2 / math.pi, double) + tirx.const(_ROUND, double)
        return let(turns, lambda rounded: rest(x, wide, rounded))

    def rest(x: Any, wide: Any, rounded: Any) -> Any:
        turns = rounded - tirx.const(_ROUND, double)
        left = wide - turns * tirx.const(_HALF_PI_HIGH, double)
        left = left - turns * tirx.const(_HALF_PI_LOW, double)
        quarter = tirx.reinterpret(whole, rounded).astype(single.replace("float", "int"))
        return let(left.astype(single), lambda r: let(quarter, lambda q: finite(x, body(r, q))))

    def finite(x: Any, value: Any) -> Any:
        bounded = tirx.max(x, -x) < constant(math.inf, x)
        return tirx.Select(bounded, value, constant(math.nan, x))

    def held(x: Any) -> Any:
        bounded = tirx.max(-end, tirx.min(end, x))
        return let(bounded.astype(double), lambda wide: split(x, wide))

    return let(x, held)


def _turned(r: Any, quarter: Any) -> Any:
    """sin(r + quarter pi/2): sine or cosine of r, of the sign that bit 1 of ``quarter`` says."""
    from tvm import tirx

    odd = tirx.bitwise_and(quarter, integer(1, r)).equal(integer(0, r))
    sign = tirx.bitwise_and(quarter, integer(2, r)) << integer(30, r)
    value = let(r * r, lambda t: tirx.Select(odd, odd_polynomial(r, t, _SIN), _cosine(t)))
    return float_of(tirx.bitwise_xor(bits_of(value), sign))


def _cosine(t: Any) -> Any:
    half = constant(1.0, t) - t * constant(0.5, t)
    return half + t * t * polynomial(t, _COS)

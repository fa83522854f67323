"""atan, asin and acos, and rounding, as arithmetic that LLVM turns into vector instructions.

Arguments are brought to where a short polynomial does by the addition theorem of atan and the half-angle
formula of asin; the polynomials are fitted as the package's others are.
"""

from __future__ import annotations

import math
from typing import Any

from edgepack.compiler.schedules.mathematics.terms import (
    bits_of,
    constant,
    float_of,
    integer,
    is_taken,
    let,
    odd_polynomial,
)

_ALL_WHOLE = 2.0**23
"""From here on every float32 is an integer."""

_ROUNDS_SMALL = 1.5 * 2.0**23
"""Added to what is below 2^22 in magnitude, and subtracted again, it rounds to an integer."""
_SMALL = 2.0**22

_SIGN = -(1 << 31)
_MAGNITUDE = (1 << 31) - 1

# (atan(r) - r) / r^3 in r^2 for r in [0, tan(pi/8)], to 2.1e-8 of atan(r).
_ATAN = (-0.33332947, 0.19977622, -0.13876697, 0.08050452)

# (asin(r) - r) / r^3 in r^2 for r in [0, 1/2], to 4.9e-9 of asin(r).
_ASIN = (0.16666752, 0.07495308, 0.045469463, 0.024182757, 0.042162407)


def nearbyint(x: Any) -> Any | None:
    """The nearest integer, of two the even one: exact."""
    from tvm import tirx

    if not is_taken(x):
        return None
    if _is_small(x):
        # By way of a variable: TVM takes x + c - c for x.
        return let(x + constant(_ROUNDS_SMALL, x), lambda sum: sum - constant(_ROUNDS_SMALL, x))
    end = constant(_ALL_WHOLE, x)

    def whole(x: Any) -> Any:
        return let(_magnitude(x), lambda a: let(a + end, lambda sum: rounded(x, a, sum)))

    def rounded(x: Any, a: Any, sum: Any) -> Any:
        return tirx.Select(a < end, _with_sign(sum - end, x), x)

    return let(x, whole)


def _is_small(x: Any) -> bool:
    """Whether the expression itself cuts its value to less than 2^22, as a clip does; never NaN then."""
    from tvm import tirx

    if not isinstance(x, tirx.Max) or not isinstance(x.a, tirx.Min):
        return False
    ends = (x.b, x.a.b)
    return all(isinstance(end, tirx.FloatImm) and abs(end.value) < _SMALL for end in ends)


def atan(x: Any) -> Any | None:
    """The arctangent, to 3e-7."""
    from tvm import tirx

    if not is_taken(x):
        return None

    def whole(x: Any) -> Any:
        return let(_magnitude(x), lambda a: _with_sign(positive(a), x))

    def positive(a: Any) -> Any:
        one, steep, middle = constant(1.0, a), a > constant(1 + math.sqrt(2), a), a > _eighth(a)
        above = tirx.Select(steep, -one, tirx.Select(middle, a - one, a))
        below = tirx.Select(steep, a, tirx.Select(middle, a + one, one))
        quarter, half = constant(math.pi / 4, a), constant(math.pi / 2, a)
        turned = tirx.Select(steep, half, tirx.Select(middle, quarter, constant(0.0, a)))
        return turned + let(above / below, lambda r: _odd(r, _ATAN))

    return let(x, whole)


def asin(x: Any) -> Any | None:
    """The arcsine, to 3e-7; NaN beyond 1 in magnitude."""
    from tvm import tirx

    if not is_taken(x):
        return None

    def whole(x: Any) -> Any:
        return let(_magnitude(x), lambda a: let(_near(a), lambda near: _with_sign(of(a, near), x)))

    def of(a: Any, near: Any) -> Any:
        half = constant(math.pi / 2, a)
        return tirx.Select(a < constant(0.5, a), near, half - constant(2.0, a) * near)

    return let(x, whole)


def acos(x: Any) -> Any | None:
    """The arccosine, to 3e-7 of itself for x > 0, and to 4e-7 in all; NaN beyond 1 in magnitude."""
    from tvm import tirx

    if not is_taken(x):
        return None

    def whole(x: Any) -> Any:
        return let(_magnitude(x), lambda a: let(_near(a), lambda near: of(x, a, near)))

    def of(x: Any, a: Any, near: Any) -> Any:
        twice, positive = constant(2.0, x) * near, x > constant(0.0, x)
        outer = tirx.Select(positive, twice, constant(math.pi, x) - twice)
        inner = constant(math.pi / 2, x) - _with_sign(near, x)
        return tirx.Select(a < constant(0.5, x), inner, outer)

    return let(x, whole)


def _near(a: Any) -> Any:
    """Asin of ``a`` below 1/2, and of sqrt((1 - a) / 2) from there on."""
    from tvm import tirx

    half = constant(0.5, a)
    root = tirx.sqrt(half - half * a)
    return let(tirx.Select(a < half, a, root), lambda r: _odd(r, _ASIN))


def _odd(r: Any, coefficients: tuple[float, ...]) -> Any:
    return let(r * r, lambda t: odd_polynomial(r, t, coefficients))


def _eighth(like: Any) -> Any:
    """tan(pi/8)."""
    return constant(math.sqrt(2) - 1, like)


def _magnitude(x: Any) -> Any:
    from tvm import tirx

    return float_of(tirx.bitwise_and(bits_of(x), integer(_MAGNITUDE, x)))


def _with_sign(magnitude: Any, x: Any) -> Any:
    """``magnitude``, which is not negative, with the sign of ``x``."""
    from tvm import tirx

    sign = tirx.bitwise_and(bits_of(x), integer(_SIGN, x))
    return float_of(tirx.bitwise_or(bits_of(magnitude), sign))

"""Terms of a formula in TIR: constants, bindings and bits, of the same lanes as their operand."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

# LLVM's generator in TVM simplifies each binding with all others put in, in time that goes with the
# size of that. A function of a function of ... beyond this size stays a call: 1 s of compile time.
_HEAVIEST = 8192

LARGEST_TO_DIVIDE_BY = 2.0**126
"""1 by more is no normal number."""
_RECIPROCAL_BITS = 0x7EF311C7
"""Minus the bits of x, it is the bits of 1 / x, to a tenth."""
_NEWTON_STEPS = 3


def let(value: Any, body: Callable[[Any], Any]) -> Any:
    """``body`` of a variable bound to ``value``: what stands in it often is computed once."""
    from tvm import tirx

    variable = tirx.Var("t", dtype(value))
    return tirx.Let(variable, value, body(variable))


def is_positive(x: Any) -> bool:
    """Whether the form of ``x`` alone says that it is above 0, whatever is rounded."""
    from tvm import tirx

    if isinstance(x, tirx.Max):
        return is_positive(x.a) or is_positive(x.b)
    if isinstance(x, tirx.Add):
        terms = (x.a, x.b)
        return any(map(is_positive, terms)) and all(
            is_positive(term) or is_square(term) for term in terms
        )
    return (fixed_value(x) or 0.0) > 0


def is_square(x: Any) -> bool:
    """Whether ``x`` is a product of one expression with itself."""
    import tvm_ffi
    from tvm import tirx

    return isinstance(x, tirx.Mul) and bool(tvm_ffi.structural_equal(x.a, x.b))


def fixed_value(x: Any) -> float | None:
    """The constant that ``x`` is, in all lanes."""
    from tvm import tirx

    inner = x.value if isinstance(x, tirx.Broadcast) else x
    return float(inner.value) if isinstance(inner, tirx.FloatImm) else None


def dtype(x: Any) -> Any:
    """The element type with the lanes."""
    return x.ty.dtype


def is_taken(x: Any) -> bool:
    """Whether ``x`` is float32 and small enough to stand in a formula many times."""
    return str(dtype(x)).split("x", 1)[0] == "float32" and _weight(x, {}) <= _HEAVIEST


def _weight(x: Any, bound: dict[Any, int]) -> int:
    """Nodes of ``x`` once every variable is replaced by what it is bound to."""
    from tvm import ir, tirx

    if isinstance(x, tirx.Let):
        return _weight(x.body, bound | {x.var: _weight(x.value, bound)})
    if isinstance(x, tirx.Var):
        return bound.get(x, 1)
    if isinstance(x, ir.Call):
        parts = list(x.args)
    else:
        names = ("a", "b", "value", "condition", "true_value", "false_value")
        parts = [part for name in names if isinstance(part := getattr(x, name, None), ir.Expr)]
    return 1 + sum(_weight(part, bound) for part in parts)


def constant(value: float, like: Any) -> Any:
    """``value`` in every lane of what ``like`` has."""
    from tvm import tirx

    return tirx.const(value, dtype(like))


def integer(value: int, like: Any) -> Any:
    """``value`` as int32 in every lane of what ``like`` has."""
    from tvm import tirx

    return tirx.const(value, str(dtype(like)).replace("float", "int"))


def bits_of(x: Any) -> Any:
    """float32 lanes as int32 lanes."""
    from tvm import tirx

    return tirx.reinterpret(str(dtype(x)).replace("float", "int"), x)


def float_of(x: Any) -> Any:
    """int32 lanes as float32 lanes."""
    from tvm import tirx

    return tirx.reinterpret(str(dtype(x)).replace("int", "float"), x)


def polynomial(x: Any, coefficients: Sequence[float]) -> Any:
    """Horner's rule; the lowest power first."""
    terms = [constant(value, x) for value in reversed(coefficients)]
    return functools.reduce(lambda total, term: total * x + term, terms)


def odd_polynomial(x: Any, square: Any, coefficients: Sequence[float]) -> Any:
    """X + x^3 P(x^2), the lowest power first; x itself where x is tiny."""
    return x + x * (square * polynomial(square, coefficients))


def divided(above: Any, below: Any) -> Any:
    """The quotient, where ``below`` is a normal number from 1 to LARGEST_TO_DIVIDE_BY."""
    return above * let(below, reciprocal) if is_division_slow() else above / below


def is_division_slow() -> bool:
    """Whether the current target takes longer to divide a vector than reciprocal() does.

    So it is on ARM: a division of four lanes keeps the pipe of a Cortex-A53 busy for some 30 cycles and an
    A72's for 17 or more, and 32-bit NEON has none. On x86 it overlaps with what else there is to do; of other
    architectures nothing better is known.
    """
    import tvm

    target = tvm.target.Target.current(allow_none=True)
    return target is not None and not str(target.attrs["mtriple"]).startswith("x86")


def reciprocal(x: Any) -> Any:
    """1 / x to 1.3e-7 for a normal x up to LARGEST_TO_DIVIDE_BY, by Newton's iteration."""

    def nearer(r: Any, steps: int) -> Any:
        if steps == 1:
            return let(constant(1.0, x) - x * r, lambda error: r + r * error)
        # Rounds once more, but names r once less, which counts for all that is bound.
        return let(r * (constant(2.0, x) - x * r), lambda r: nearer(r, steps - 1))

    first = float_of(integer(_RECIPROCAL_BITS, x) - bits_of(x))
    return let(first, lambda r: nearer(r, _NEWTON_STEPS))

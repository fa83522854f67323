"""``edgepack.RoundTo``: float32 numbers rounded to those of a narrower type, still as float32.

The importers write it for models with bfloat16, float8 and float4 (importers/passes/rounding.py); its
numbers are those of ONNX's Cast. Everything is done on the bits of a float32: sign, exponent of 8
bits with 127 for 2⁰, mantissa of 23 bits.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edgepack.compiler.frontend.node import Converter, Node

DOMAIN = "edgepack"

_SIGN = 1 << 31
_MAGNITUDE = (1 << 31) - 1
_MANTISSA = 23
_INFINITY = 0x7F800000
_NAN = 0x7FC00000


@dataclass(frozen=True, kw_only=True)
class _Format:
    """A floating-point type: numbers of ``mantissa`` bits after the leading one."""

    mantissa: int
    lowest: int
    """Exponent of the smallest normal number."""
    largest: float
    beyond: int | None
    """float32 bits of what the type has for a number too large; None where it is always the largest."""
    is_signed_zero: bool = True


_FORMATS = {
    "bfloat16": _Format(mantissa=7, lowest=-126, largest=float("inf"), beyond=_INFINITY),
    "float8e4m3fn": _Format(mantissa=3, lowest=-6, largest=448, beyond=_NAN),
    "float8e4m3fnuz": _Format(
        mantissa=3, lowest=-7, largest=240, beyond=_NAN, is_signed_zero=False
    ),
    "float8e5m2": _Format(mantissa=2, lowest=-14, largest=57344, beyond=_INFINITY),
    "float8e5m2fnuz": _Format(
        mantissa=2, lowest=-15, largest=57344, beyond=_NAN, is_signed_zero=False
    ),
    "float4e2m1": _Format(mantissa=1, lowest=0, largest=6, beyond=None),
}
"""All but float8e8m0, which has neither sign nor mantissa nor zero."""


def _round_to(node: Node) -> Any:
    name = str(node.attributes["to"])
    saturate = bool(node.attributes.get("saturate", 1))
    if name == "float8e8m0":
        mode = str(node.attributes.get("round_mode", "up"))
        return _elementwise(node, lambda bits: _power_of_two(bits, saturate=saturate, mode=mode))
    form = _FORMATS[name]
    return _elementwise(node, lambda bits: _rounded(bits, form, saturate=saturate))


def _elementwise(node: Node, function: Callable[[Any], Any]) -> Any:
    """``function`` of the bits of every element, giving bits."""
    from tvm import te, tirx

    def compute(x: Any) -> Any:
        bits = te.compute(x.shape, lambda *at: tirx.reinterpret("uint32", x(*at)), name="bits")
        return te.compute(
            x.shape, lambda *at: tirx.reinterpret("float32", function(bits(*at))), name="rounded"
        )

    return node.compute(compute, node.inputs[0], name="round_to")


def _bits(value: float) -> int:
    return int(struct.unpack("<I", struct.pack("<f", value))[0])


def _word(value: int) -> Any:
    """32 bits; unsigned, for TVM takes signed ones that are compared for indices, and widens them."""
    from tvm import tirx

    return tirx.const(value & 0xFFFFFFFF, "uint32")


def _rounded(bits: Any, form: _Format, *, saturate: bool) -> Any:
    """To the nearest number of the format, of two as near the one with an even mantissa."""
    from tvm import tirx

    size = bits & _word(_MAGNITUDE)
    # Adding just under half of the last bit that stays carries where the rest is more than a half,
    # and where it is a half and that bit is odd; the carry goes over into the exponent by itself.
    dropped = _MANTISSA - form.mantissa
    odd = tirx.shift_right(size, _word(dropped)) & _word(1)
    rounded = (size + _word((1 << (dropped - 1)) - 1) + odd) & _word(-(1 << dropped))
    if form.lowest > -126:
        small = size < _word(_bits(2.0**form.lowest))
        rounded = tirx.Select(small, _subnormal(size, form), rounded)
    if form.beyond is None or (saturate and form.largest != float("inf")):
        rounded = tirx.min(rounded, _word(_bits(form.largest)))
    else:
        rounded = tirx.Select(rounded > _word(_bits(form.largest)), _word(form.beyond), rounded)
    sign = bits & _word(_SIGN)
    if form.beyond is None:  # no NaN either: it is zero, of the other sign
        return tirx.Select(size > _word(_INFINITY), sign ^ _word(_SIGN), rounded | sign)
    signed = rounded | sign
    if not form.is_signed_zero:
        signed = tirx.Select(rounded == _word(0), _word(0), signed)
    return tirx.Select(size > _word(_INFINITY), _word(_NAN) | sign, signed)


def _subnormal(size: Any, form: _Format) -> Any:
    """Below the smallest normal number: to a multiple of the smallest of all."""
    from tvm import tirx

    step = 2.0 ** (form.lowest - form.mantissa)
    # The last bit of a float32 this large is worth one step: adding rounds, and counts.
    grid = step * 2.0**_MANTISSA
    sum_bits = tirx.reinterpret(
        "uint32", tirx.reinterpret("float32", size) + tirx.const(grid, "float32")
    )
    steps = tirx.Cast("float32", tirx.Cast("int32", sum_bits - _word(_bits(grid))))
    return tirx.reinterpret("uint32", steps * tirx.const(step, "float32"))


def _power_of_two(bits: Any, *, saturate: bool, mode: str) -> Any:
    """To 2⁻¹²⁷, 2⁻¹²⁶, … 2¹²⁷; the first is a float32 without a leading one."""
    from tvm import tirx

    least, smallest_normal, largest = _bits(2.0**-127), _bits(2.0**-126), _bits(2.0**127)
    # Half-way up the exponent, or all but the whole way, counts for the next.
    part = {"down": 0, "nearest": 1 << (_MANTISSA - 1), "up": (1 << _MANTISSA) - 1}[mode]
    size = bits & _word(_MAGNITUDE)
    normal = (size + _word(part)) & _word(_INFINITY)
    next_from = {"down": smallest_normal, "nearest": least + least // 2, "up": least + 1}[mode]
    tiny = tirx.Select(bits < _word(next_from), _word(least), _word(smallest_normal))
    rounded = tirx.Select(bits < _word(smallest_normal), tiny, normal)
    is_nan = size > _word(_INFINITY)
    if saturate:
        rounded = tirx.Select(bits >= _word(_SIGN), _word(least), tirx.min(rounded, _word(largest)))
    else:
        # As unsigned words, negative numbers lie above infinity.
        is_nan = tirx.any(bits < _word(least), bits >= _word(_INFINITY), rounded > _word(largest))
    return tirx.Select(is_nan, _word(_NAN), rounded)


CONVERTERS: dict[str, Converter] = {"RoundTo": _round_to}

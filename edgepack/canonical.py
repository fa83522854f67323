r"""Canonical JSON: one document, one sequence of bytes.

Everything that is hashed or signed is written in this form, and read in no other: UTF-8, object keys
sorted, no white space, no trailing newline, only ``"``, ``\`` and control characters escaped, no
duplicate keys, no NaN or infinity. With ASCII keys (any other is refused), integers below 2^53 and no
floating-point numbers this is RFC 8785 (JSON Canonicalization Scheme) to the byte. Floats, which only
model.json holds, are written as Python's ``repr`` writes them (``1e-07`` where RFC 8785 has
``1e-7``): also the shortest digits that read back as the same number.

The functions below ``decode`` take a decoded document apart. ``where`` names the place for the
message, and whatever is not as expected is a MalformedError, which a stage turns into its own error.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from typing import Any

MAX_DOCUMENT_BYTES = 4 * 1024 * 1024
"""No JSON document of a package is larger."""

MAX_INTEGER = 2**53 - 1
"""Largest integer that every JSON reader takes exactly (RFC 8259, section 6)."""

_MAX_DEPTH = 32


class MalformedError(ValueError):
    """A document is not what its format asks for; the text says where and why."""


def encode(value: object) -> bytes:
    """The canonical form of a document made of dicts, lists, strings, numbers, booleans and None.

    Raises:
        MalformedError: It has no canonical form.
    """
    _check(value, _MAX_DEPTH)
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise MalformedError("a string is not valid Unicode") from error


def decode(data: bytes, where: str) -> Any:
    """Parse a document that must be in canonical form.

    Raises:
        MalformedError: It is too large, is not JSON, or is not in canonical form.
    """
    if len(data) > MAX_DOCUMENT_BYTES:
        raise MalformedError(f"{where} is {len(data)} bytes, over {MAX_DOCUMENT_BYTES}")
    try:
        value = json.loads(
            data.decode(), object_pairs_hook=_no_duplicates, parse_constant=_no_constant
        )
        again = encode(value)
    except MalformedError as error:
        raise MalformedError(f"{where}: {error}") from error
    except RecursionError as error:
        raise MalformedError(f"{where} is nested too deeply") from error
    except ValueError as error:
        raise MalformedError(f"{where} is not JSON: {error}") from error
    if again != data:
        raise MalformedError(f"{where} is not in canonical form (sorted keys, no white space)")
    return value


def members(
    value: object, where: str, required: Collection[str], optional: Collection[str] = ()
) -> dict[str, Any]:
    """An object with exactly the required keys and any of the optional ones."""
    if not isinstance(value, dict):
        raise MalformedError(f"{where} is not an object")
    for key in required:
        if key not in value:
            raise MalformedError(f"{where} lacks {key!r}")
    for key in value:
        if key not in required and key not in optional:
            raise MalformedError(f"{where} has an unknown key {key!r}")
    return value


def mapping(value: object, where: str) -> dict[str, Any]:
    """An object with any keys."""
    if not isinstance(value, dict):
        raise MalformedError(f"{where} is not an object")
    return value


def items(value: object, where: str, most: int) -> list[Any]:
    """An array of at most ``most`` elements."""
    if not isinstance(value, list):
        raise MalformedError(f"{where} is not an array")
    if len(value) > most:
        raise MalformedError(f"{where} has {len(value)} elements, over {most}")
    return value


def text(value: object, where: str) -> str:
    """A string."""
    if not isinstance(value, str):
        raise MalformedError(f"{where} is not a string")
    return value


def texts(value: object, where: str) -> dict[str, str]:
    """An object whose values are strings."""
    return {key: text(entry, f"{where}.{key}") for key, entry in mapping(value, where).items()}


def integer(value: object, where: str, low: int = 0, high: int = MAX_INTEGER) -> int:
    """An integer from ``low`` to ``high``."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise MalformedError(f"{where} is not an integer")
    if not low <= value <= high:
        raise MalformedError(f"{where} is {value}, not within {low} to {high}")
    return value


def number(value: object, where: str) -> float:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise MalformedError(f"{where} is not a number")
    return float(value)


def hexadecimal(value: object, where: str) -> str:
    """A SHA-256 digest as 64 lower-case hexadecimal digits."""
    digits = text(value, where)
    if len(digits) != 64 or not set(digits) <= set("0123456789abcdef"):
        raise MalformedError(f"{where} is not 64 lower-case hexadecimal digits: {digits[:80]!r}")
    return digits


def _check(value: object, depth: int) -> None:
    if depth == 0:
        raise MalformedError(f"nested more than {_MAX_DEPTH} deep")
    if isinstance(value, dict):
        for key, entry in value.items():
            if not isinstance(key, str) or not key.isascii():
                raise MalformedError(f"key {key!r} is not ASCII")
            _check(entry, depth - 1)
    elif isinstance(value, list | tuple):
        for entry in value:
            _check(entry, depth - 1)
    elif isinstance(value, int | float):
        _check_number(value)
    elif not isinstance(value, str | None):
        raise MalformedError(f"a {type(value).__name__} has no JSON form")


def _check_number(value: float) -> None:
    if isinstance(value, int):
        if abs(value) > MAX_INTEGER:
            raise MalformedError(f"integer {value} is beyond 2^53")
    elif not math.isfinite(value):
        raise MalformedError(f"{value} is not a finite number")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise MalformedError(f"key {twice!r} is there twice")
    return value


def _no_constant(name: str) -> Any:
    raise MalformedError(f"{name} is not a finite number")

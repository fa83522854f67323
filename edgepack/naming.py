"""What a package and a target may be called, and what a version looks like.

Names end up in file names, URLs, registry references and shell commands, so they are kept to what
is safe in all of them: ``[a-z0-9][a-z0-9._-]{0,63}``. A version is ``MAJOR.MINOR.PATCH``, three
decimal numbers below 2^31 without leading zeros: two versions always compare, and in one way only.
"""

from __future__ import annotations

import re

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_NUMBER = r"(0|[1-9][0-9]{0,9})"
_VERSION = re.compile(rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}")

NAME_RULE = "1 to 64 characters out of a-z, 0-9, '.', '_' and '-', the first a letter or a digit"
VERSION_RULE = "MAJOR.MINOR.PATCH, decimal numbers below 2147483648 without leading zeros"


def is_name(text: str) -> bool:
    """Whether a package or a target may be called ``text``."""
    return _NAME.fullmatch(text) is not None


def parse_version(text: str) -> tuple[int, int, int]:
    """``"1.10.2"`` as ``(1, 10, 2)``, which compares as versions do.

    Raises:
        ValueError: It is not a version.
    """
    match = _VERSION.fullmatch(text)
    if match is not None:
        major, minor, patch = (int(number) for number in match.groups())
        if max(major, minor, patch) < 2**31:
            return major, minor, patch
    raise ValueError(f"{text!r} is not a version: {VERSION_RULE}")

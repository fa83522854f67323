"""Words for a name that is not among the valid ones."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(given: str, valid: Iterable[str]) -> str:
    """``"Did you mean 'x'? "`` for close matches, or nothing."""
    close = difflib.get_close_matches(given.lower(), list(valid), n=3, cutoff=0.6)
    return f"Did you mean {' or '.join(map(repr, close))}? " if close else ""

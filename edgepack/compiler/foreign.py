"""TVM's exceptions in one line: they have no common type, and their texts are long traces."""

from __future__ import annotations

_NOISE = ("Traceback", "File ", "During handling", "The above exception", "^")


def reason(error: BaseException) -> str:
    """The line that says what failed, with the exception's type; follows the cause if it is empty."""
    lines = [line.strip() for line in str(error).splitlines()]
    telling = [line for line in lines if line and not line.startswith(_NOISE)]
    if telling:
        return f"{type(error).__name__}: {telling[0][:300]}"
    deeper = error.__cause__ or error.__context__
    return reason(deeper) if deeper is not None else type(error).__name__

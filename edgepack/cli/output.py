"""What a command shows: its result on stdout, everything else on stderr.

With ``--json`` the result is one JSON object and stdout carries nothing but it, whatever a library
or a child process prints meanwhile.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any, TextIO

Say = Callable[[str], None]

_result_stream: TextIO | None = None


@contextmanager
def result_stream(*, reserved: bool) -> Iterator[None]:
    """Within it, ``reserved``, file descriptor 1 is stderr: only show() reaches the real stdout."""
    global _result_stream
    if not reserved:
        yield
        return
    sys.stdout.flush()
    stdout = os.dup(1)
    os.dup2(2, 1)
    try:
        with (
            os.fdopen(os.dup(stdout), "w", encoding="utf-8") as _result_stream,
            redirect_stdout(sys.stderr),
        ):
            yield
    finally:
        _result_stream = None
        sys.stdout.flush()
        os.dup2(stdout, 1)
        os.close(stdout)


def show(result: Mapping[str, Any], text: str, *, as_json: bool) -> None:
    """Write a command's result: ``result`` as one line of JSON, or ``text``."""
    stream = _result_stream or sys.stdout
    line = json.dumps(result, ensure_ascii=False, allow_nan=False) if as_json else text
    print(line, file=stream, flush=True)


def warn(message: str) -> None:
    """Say on stderr what the user should know though the command goes on."""
    print(f"warning: {message}", file=sys.stderr, flush=True)


@contextmanager
def progress() -> Iterator[Say]:
    """Yield what tells the user, on stderr, which step is under way: a spinner on a terminal."""
    if not sys.stderr.isatty():
        yield lambda step: print(step, file=sys.stderr, flush=True)
        return
    from rich.console import Console
    from rich.text import Text

    with Console(stderr=True).status("") as status:
        yield lambda step: status.update(Text(step))


@contextmanager
def transfer() -> Iterator[Callable[[int, int], None] | None]:
    """Yield what shows bytes sent of bytes to send: a bar on a terminal, else nothing."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    shown = (BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*shown, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda sent, total: bar.update(task, completed=sent, total=total)


def columns(rows: Iterable[Sequence[object]]) -> str:
    """Rows of cells as lines of aligned columns; numbers to the right, the rest to the left."""
    table = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(text) for text, _ in column) for column in zip(*table, strict=True)]
    lines = (
        "  ".join(
            text.rjust(width) if number else text.ljust(width)
            for (text, number), width in zip(row, widths, strict=True)
        ).rstrip()
        for row in table
    )
    return "\n".join(lines)


def _cell(value: object) -> tuple[str, bool]:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return (f"{value:,}" if number else str(value)), number


def byte_size(count: int) -> str:
    """``1,234,567`` bytes as ``1.18 MiB``."""
    if count < 1024:
        return f"{count} B"
    power = min((count.bit_length() - 1) // 10, 3)
    size = count / 1024**power
    return f"{size:.3g} {'_KMG'[power]}iB" if size < 100 else f"{size:.0f} {'_KMG'[power]}iB"

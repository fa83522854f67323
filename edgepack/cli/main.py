"""The entry point: runs a command and turns every failure into one clear line and an exit code."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import typer

from edgepack.cli.app import app
from edgepack.cli.output import result_stream, show
from edgepack.errors import EdgepackError

USAGE = 2
INTERRUPTED = 130
"""As shells report a process that SIGINT ended."""
BROKEN_PIPE = 141
"""As shells report a process that SIGPIPE ended."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (default: this process's) and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    as_json = "--json" in arguments
    debug = "--debug" in arguments or bool(os.environ.get("EDGEPACK_DEBUG"))
    try:
        with result_stream(reserved=as_json):
            return _run(arguments, as_json=as_json, debug=debug)
    except BrokenPipeError:
        # The reader of stdout has gone; so that flushing at exit does not fail as well:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return BROKEN_PIPE


def _run(arguments: list[str], *, as_json: bool, debug: bool) -> int:
    code: int | None
    with _noting_interrupts() as interrupts:
        try:
            code = app(args=arguments, prog_name="edgepack", standalone_mode=False)
        except SystemExit as error:
            # typer itself meets a broken pipe with sys.exit(1).
            raise BrokenPipeError from error
        except Exception as error:
            if debug:
                traceback.print_exception(error)
            if not interrupts:
                return _fail(error, as_json=as_json)
            code = INTERRUPTED
    if code == INTERRUPTED:
        _report("Interrupted", "interrupted", "", as_json=as_json)
    return code or 0


@contextmanager
def _noting_interrupts() -> Iterator[list[int]]:
    """Yield a list that is not empty once SIGINT came.

    A library that calls back into Python turns the KeyboardInterrupt into an error of its own.
    """
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)
        signal.default_int_handler(number, frame)

    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield came  # ignored (nohup), or the caller's own affair
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield came
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _fail(error: Exception, *, as_json: bool) -> int:
    """Report what ended a command; returns the exit code of its class."""
    if isinstance(error, EdgepackError):
        check = getattr(error, "check", "")
        _report(type(error).__name__, error.message, error.hint, check, as_json=as_json)
        return error.exit_code
    if isinstance(error, typer.TyperException):
        context = getattr(error, "ctx", None)
        hint = f"{context.command_path if context else 'edgepack'} --help"
        _report("UsageError", error.format_message(), hint, as_json=as_json)
        return USAGE
    message = f"internal error: {type(error).__name__}: {str(error).partition(os.linesep)[0]}"
    hint = "this is a bug in edgepack: run the command again with EDGEPACK_DEBUG=1 and report its output"
    _report("InternalError", message, hint, as_json=as_json)
    return EdgepackError.exit_code


def _report(kind: str, message: str, hint: str, check: str = "", *, as_json: bool) -> None:
    print(f"error: {message}", file=sys.stderr)
    if hint:
        print(f"hint: {hint}", file=sys.stderr)
    if as_json:
        error = {"class": kind, "message": message, "hint": hint}
        show({"error": error | ({"check": check} if check else {})}, "", as_json=True)

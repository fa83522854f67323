"""Writes cli.md from the commands' own help (``make docs``); a test holds the two together."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path

from edgepack.cli import main

CLI_MD = Path(__file__).with_name("cli.md")

COMMANDS = (
    ("targets",),
    ("inspect",),
    ("compile",),
    ("sign",),
    ("verify",),
    ("run",),
    ("bench",),
    ("push",),
    ("device", "setup"),
    ("device", "status"),
    ("device", "rollback"),
    ("device", "capture", "set"),
    ("device", "capture", "off"),
    ("device", "capture", "status"),
    ("device", "capture", "pull"),
    ("keys", "new"),
    ("keys", "show"),
)

_INTRODUCTION = """\
# The command line

This page is written by `make docs` from the commands' own help.

Every command takes `--json`: stdout then carries one JSON object and nothing else, and what a person
reads goes to stderr. An error is `{"error": {"class", "message", "hint"}}`; where one of the checks
of trust failed, `"check"` names it. The exit code tells the class:

| code | class | what is wrong |
|---|---|---|
| 0 | | nothing |
| 1 | `InternalError` | a bug in edgepack |
| 2 | `UsageError` | the command line itself |
| 3 | `ConfigError` | a setting, an option or a target profile |
| 4 | `ModelError` | the source model: not readable, not supported, shapes missing |
| 5 | `CompileError` | the compilation, or the compiled model computes other numbers |
| 6 | `ToolchainError` | a tool that edgepack runs is missing or failed |
| 7 | `PackageError` | a file is not a well-formed package |
| 8 | `TrustError` | a key, a signature, a digest or a version is refused |
| 9 | `ChannelError` | the way to the device: connection, credentials, storage |
| 10 | `DeviceError` | the device refused or failed: disk, architecture, golden vectors |
| 130 | `Interrupted` | Ctrl-C |
| 141 | | whoever read stdout went away |

`verify` answers `{"ok": true, …}` or `{"ok": false, "check", "reason"}` with the code of the class.
"""


def help_text(*command: str) -> str:
    """What ``edgepack COMMAND --help`` prints on a terminal of 80 columns."""
    printed = io.StringIO()
    width = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "80"
    try:
        with contextlib.redirect_stdout(printed):
            main([*command, "--help"])
    finally:
        if width is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = width
    return printed.getvalue()


def reference() -> str:
    """The whole of cli.md."""
    sections = [_INTRODUCTION, f"```\n{help_text()}```\n"]
    for command in COMMANDS:
        sections.append(f"## edgepack {' '.join(command)}\n\n```\n{help_text(*command)}```\n")
    return "\n".join(sections)


if __name__ == "__main__":
    CLI_MD.write_text(reference(), encoding="utf-8")

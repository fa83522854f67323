"""The command line: the only code that prints, exits, or imports typer and rich."""

from __future__ import annotations

from edgepack.cli.main import main

__all__ = ["main"]

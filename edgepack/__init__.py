"""edgepack compiles machine-learning models ahead of time and carries them, signed, to edge devices.

The command line is the interface (``edgepack --help``, docs/cli.md).
"""

from __future__ import annotations

__version__ = "0.1.0"

"""edgepack compiles machine-learning models ahead of time and carries them, signed, to edge devices.

The command line is the interface (``edgepack --help``, docs/cli.md).
"""

from __future__ import annotations

import os

__version__ = "0.1.0"

# ONNX Runtime's official builds send telemetry, on Linux since 1.29, and start it when they are imported;
# only this variable keeps them from it. Nobody who compiles a model with edgepack has agreed to that.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

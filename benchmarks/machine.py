"""What the benchmark runs on."""

from __future__ import annotations

import os
import platform
import re
from datetime import UTC, datetime
from pathlib import Path


def describe() -> dict[str, str]:
    """Date, processor, load and system, as the report names them."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    cpu = found[1] if found else platform.machine()
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "processor": f"{cpu}, {os.cpu_count()} cores",
        "load": f"load {os.getloadavg()[0]:.1f} at the start",
        "system": platform.freedesktop_os_release()["PRETTY_NAME"],
        "python": f"Python {platform.python_version()}",
    }

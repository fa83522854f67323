"""``python -m http.server`` on a loopback port: a web root as anybody has one."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.integration.machines.ports import free_ports, listens, wait_until


@contextlib.contextmanager
def web_server(folder: Path) -> Iterator[str]:
    """Serve ``folder``; yields its URL."""
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1"]
    command += ["-d", str(folder), str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: listens(port), 20, "the web server listens")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)

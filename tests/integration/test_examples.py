"""The examples do what they say: each is run whole, as its reader would run it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import edgepack

ROOT = Path(edgepack.__file__).parents[1]


def processes_in(folder: Path) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                executable = (entry / "exe").readlink()
            except OSError:
                continue
            if executable.is_relative_to(folder):
                found.append(str(executable))
    return found


@pytest.mark.needs("sshd", "ssh-keygen", "qemu-aarch64-static")
@pytest.mark.timeout(1800)
def test_the_demo_reads_its_line_on_the_device_and_leaves_nothing() -> None:
    with tempfile.TemporaryDirectory(prefix="edgepack-") as folder:  # a socket's path is short
        done = subprocess.run(
            [sys.executable, "-m", "examples.demo"],
            cwd=ROOT,
            env=os.environ | {"TMPDIR": folder},
            capture_output=True,
            text=True,
        )
        left = [path.name for path in Path(folder).iterdir()]
        running = processes_in(Path(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    reads = next(line for line in done.stdout.splitlines() if line.strip().startswith("reads"))
    assert reads.count("'edgepack 2026'") == 2
    assert (left, running) == ([], [])

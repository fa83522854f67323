from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from edgepack.toolchain import RUNTIME, cache_directory


def test_the_agents_own_tests_pass(tmp_path: Path) -> None:
    """The ``test`` blocks of runtime/agent/*.zig, with safety checks on."""
    caches = cache_directory() / "zig"
    command = [sys.executable, "-m", "ziglang", "test", str(RUNTIME / "agent" / "main.zig")]
    command += ["--global-cache-dir", str(caches / "global"), "--cache-dir", str(caches / "local")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "0 tests passed" not in done.stderr

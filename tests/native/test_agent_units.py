from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from edgepack.toolchain import RUNTIME, cache_directory, zig_modules


def test_the_agents_own_tests_pass(tmp_path: Path) -> None:
    """The ``test`` blocks of runtime/agent/*.zig, with safety checks on."""
    caches = cache_directory() / "zig"
    command = [sys.executable, "-m", "ziglang", "test", *zig_modules("agent")]
    command += ["--global-cache-dir", str(caches / "global"), "--cache-dir", str(caches / "local")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert not re.search(r"\b0 tests passed", done.stderr)


def test_the_sandboxs_own_tests_pass(tmp_path: Path) -> None:
    """The ``test`` blocks of runtime/sandbox/*.zig; a module's own are not among the root's."""
    caches = cache_directory() / "zig"
    source = RUNTIME / "sandbox" / "sandbox.zig"
    command = [sys.executable, "-m", "ziglang", "test", str(source)]
    command += ["--global-cache-dir", str(caches / "global"), "--cache-dir", str(caches / "local")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert not re.search(r"\b0 tests passed", done.stderr)

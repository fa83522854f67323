from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from edgepack.toolchain import RUNTIME, cache_directory, zig_modules
from tests.native import fake_device


def run_tests(modules: Sequence[str], options: Sequence[str], folder: Path) -> None:
    """The ``test`` blocks of the first module, with safety checks on."""
    caches = cache_directory() / "zig"
    command = [sys.executable, "-m", "ziglang", "test", *modules, *options]
    command += ["--global-cache-dir", str(caches / "global"), "--cache-dir", str(caches / "local")]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert not re.search(r"\b0 tests passed", done.stderr)


def test_the_agents_own_tests_pass(tmp_path: Path) -> None:
    run_tests(zig_modules("agent"), [], tmp_path)


@pytest.mark.parametrize("name", ["aarch64", "armv7"])
@pytest.mark.needs("qemu-aarch64-static", "qemu-arm-static")
def test_the_agents_own_tests_pass_on_other_processors(name: str, tmp_path: Path) -> None:
    machine = fake_device.emulated_machine(name)
    target = ["-target", machine.target.zig_static_triple, f"-mcpu={machine.target.zig_cpu}"]
    modules: list[str] = []
    for word in zig_modules("agent"):
        modules += [*target, word] if word.startswith("-M") else [word]
    run_tests(modules, ["--test-cmd", machine.emulator, "--test-cmd-bin"], tmp_path)


def test_the_sandboxs_own_tests_pass(tmp_path: Path) -> None:
    """Those of a module that is not the root are not among the root's."""
    run_tests([str(RUNTIME / "sandbox" / "sandbox.zig")], [], tmp_path)

"""What every test may use: programs that must be there, the command line, pretrained models."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

import pytest

import edgepack as _edgepack  # noqa: F401 (before anything imports onnxruntime: no telemetry)

_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """``@pytest.mark.needs("sshd", "qemu-aarch64-static")``: programs of the system, by name."""
    for mark in item.iter_markers("needs"):
        missing = [program for program in mark.args if shutil.which(program, path=_PATH) is None]
        if missing:
            reason = f"not installed: {', '.join(missing)} (make test installs what tests need)"
            unavailable(reason)


def unavailable(reason: str) -> NoReturn:
    """Skip by name what this machine cannot test; under CI=true that is a failure."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


Edgepack = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def edgepack() -> Edgepack:
    """Run the command line in a process of its own: ``edgepack("targets", "--json", cwd=path)``."""

    def run(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "edgepack", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False, **options)

    return run


@pytest.fixture(scope="session")
def edgepack_json(edgepack: Edgepack) -> Callable[..., Any]:
    """As ``edgepack``, with ``--json``: checks that it succeeds, and returns the parsed object."""

    def run(*arguments: str | Path, **options: Any) -> Any:
        done = edgepack(*arguments, "--json", **options)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.fixture(scope="session")
def pretrained() -> Callable[[str, str], Path]:
    """The path of a model inside a package of tests/models.txt, which is not imported."""

    def find(package: str, file: str) -> Path:
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            unavailable(f"{package} is not installed (make test installs tests/models.txt)")
        return Path(spec.origin).parent / file

    return find

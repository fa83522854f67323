"""edgepack: compiled by its command, run by the worker that devices run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

TITLE = "edgepack"
PACKAGES = ("edgepack", "apache-tvm", "ziglang")
START_COMPARES = True


def convert(model: Path, folder: Path) -> Path:
    """``edgepack compile`` for this machine; what the command says is kept in compile.json."""
    packed = folder / f"{model.stem}.epk"
    command = ["compile", str(model), "--target", "host", "--output", str(packed), "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "edgepack", *command], capture_output=True, text=True
    )
    if done.returncode != 0:
        raise RuntimeError(_reason(done.stdout) or done.stderr.strip()[-200:])
    (folder / "compile.json").write_text(done.stdout)
    return packed


def _reason(answer: str) -> str:
    try:
        error = json.loads(answer)["error"]
    except (ValueError, KeyError):
        return ""
    return str(error["message"])


class _Session:
    def __init__(self, packed: Path, threads: int) -> None:
        from edgepack import build, package

        opened = package.read_package(packed)
        self._running = build.worker_of(opened, build.choose_target(opened, None), threads=threads)
        self._worker = self._running.__enter__()
        self.began_ns = self._worker.started_ns
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        self.pid = int(children[-1])

    def feed(self, inputs: Mapping[str, np.ndarray]) -> None:
        self._worker.write(inputs)

    def run(self) -> int:
        return self._worker.run()

    def answers(self) -> list[np.ndarray]:
        return list(self._worker.read().values())

    def close(self) -> None:
        self._running.__exit__(None, None, None)


def start(artifact: Path, threads: int) -> _Session:
    """A worker, as ``edgepack bench`` starts it."""
    return _Session(artifact, threads)


def shipped() -> Sequence[Path]:
    """The agent; a model's own worker is counted with the model."""
    from edgepack.targets import load_target
    from edgepack.toolchain import build_agent

    return [build_agent(load_target("host"))]

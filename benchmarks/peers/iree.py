"""IREE's LLVM CPU compiler and its local executors."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

TITLE = "IREE"
PACKAGES = ("iree-base-runtime", "iree-base-compiler")
START_COMPARES = True

_FLAGS = ("--iree-hal-target-device=local", "--iree-hal-local-target-device-backends=llvm-cpu",
          "--iree-llvmcpu-target-cpu=host", "--iree-opt-level=O3")  # fmt: skip


def convert(model: Path, folder: Path) -> Path:
    """ONNX to MLIR to code for this CPU."""
    module, code = folder / "m.mlir", folder / "m.vmfb"
    _tool("iree-import-onnx", model, "-o", module)
    _tool("iree-compile", module, *_FLAGS, "-o", code)
    module.unlink()
    return code


def _tool(name: str, *arguments: str | Path) -> None:
    program = Path(sys.executable).with_name(name)
    done = subprocess.run([program, *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        errors = [line.partition("error: ")[2] for line in done.stderr.splitlines()]
        raise RuntimeError(f"{name}: {next(filter(None, errors), 'failed')[:120]}")


class _Session:
    def __init__(self, code: Path, threads: int) -> None:
        self.pid = os.getpid()
        self.began_ns = time.monotonic_ns()
        import iree.runtime as runtime  # type: ignore[import-not-found, unused-ignore]

        if threads > 1:
            runtime.flags.parse_flags(f"--task_topology_max_group_count={threads}")
        self._config: Any = runtime.Config("local-sync" if threads == 1 else "local-task")
        module = runtime.VmModule.mmap(self._config.vm_instance, str(code))
        names = [name for name in module.function_names if name[:2] != "__" and "$" not in name]
        self._function = runtime.load_vm_module(module, self._config)[names[0]]
        self._place = runtime.asdevicearray
        self._fed: list[Any] = []
        self._answers: Any = ()

    def feed(self, inputs: Mapping[str, np.ndarray]) -> None:
        self._fed = [self._place(self._config.device, value) for value in inputs.values()]

    def run(self) -> None:
        self._answers = self._function(*self._fed)

    def answers(self) -> list[np.ndarray]:
        several = isinstance(self._answers, tuple | list)
        return [value.to_host() for value in (self._answers if several else [self._answers])]

    def close(self) -> None:
        """Nothing outlives the process."""


def start(artifact: Path, threads: int) -> _Session:
    """Code mapped from its file; one thread runs in the caller, several in a pool."""
    return _Session(artifact, threads)


def shipped() -> Sequence[Path]:
    """The runtime's module."""
    import iree._runtime_libs as libraries  # type: ignore[import-not-found, unused-ignore]

    return sorted(Path(libraries.__file__).parent.glob("*.so"))

"""A worker process of this machine, natively or under qemu-user: used by checks, run and bench.

What is said between the two stands in worker_protocol.py.
"""

from __future__ import annotations

import mmap
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from edgepack import worker_protocol as protocol
from edgepack.artefacts import TensorSpec
from edgepack.errors import DeviceError, ToolchainError
from edgepack.worker_protocol import Operation

if TYPE_CHECKING:
    import numpy as np

    from edgepack.targets import Target

_DEADLINE = 600.0
"""Seconds for one answer; emulated workers are slow."""


def emulator_for(target: Target) -> list[str]:
    """The command that runs a foreign executable here: empty where it runs natively.

    Raises ToolchainError where qemu-user is needed and missing.
    """
    if target.runs_here():
        return []
    if not target.qemu:
        raise ToolchainError(
            f"this machine's CPU cannot run code for {target.name}, and no emulator can",
            "choose a profile that this machine runs: edgepack targets",
        )
    qemu = shutil.which(target.qemu) or shutil.which(target.qemu.removesuffix("-static"))
    if qemu is None:
        raise ToolchainError(
            f"{target.qemu} is needed to run code for {target.name} here and is not installed",
            "apt-get install qemu-user-static",
        )
    return [qemu, "-cpu", target.qemu_cpu]


class Worker:
    """One running worker. Use as a context manager; ``run`` as often as wanted."""

    def __init__(
        self,
        executable: Path,
        weights: Path,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        emulator: list[str],
        threads: int | None = None,
    ) -> None:
        """Start the process and wait until it is ready. Raises DeviceError with its last words.

        Without ``threads`` it takes as many as on a device: the profile's cores, but no more than
        CPUs that it may run on.
        """
        self.inputs, self.outputs = inputs, outputs
        offsets, size = protocol.layout((*inputs, *outputs))
        self._offsets = dict(zip((*inputs, *outputs), offsets, strict=True))
        self._directory = tempfile.TemporaryDirectory(prefix="edgepack-", dir=_memory_directory())
        shared = Path(self._directory.name) / "tensors"
        with shared.open("w+b") as file:
            file.truncate(size)
            self._memory = mmap.mmap(file.fileno(), size)
        command = [*emulator, str(executable), "serve", str(weights), str(shared)]
        if threads is not None:
            command.append(str(threads))
        self.started_ns = time.monotonic_ns()
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        try:
            self.memory_bytes = self._reply("could not start")
        except BaseException:
            self.close()
            raise
        self.ready_ns = time.monotonic_ns() - self.started_ns

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The worker's process, or its emulator's."""
        return self._process.pid

    def write(self, values: Mapping[str, np.ndarray]) -> None:
        """Put every input into shared memory, and NaN (0xFF bytes) into every output."""
        for spec in self.inputs:
            content = values[spec.name].tobytes()
            assert len(content) == spec.nbytes
            self._memory[self._offsets[spec] : self._offsets[spec] + len(content)] = content
        for spec in self.outputs:
            start = self._offsets[spec]
            self._memory[start : start + spec.nbytes] = b"\xff" * spec.nbytes

    def run(self) -> int:
        """Run the model once on what ``write`` left; returns the worker's own time in ns."""
        return self._ask(Operation.RUN)

    def observe(self, calls: int) -> list[int]:
        """``run`` with every call of the plan timed, of which there are ``calls``; in ns."""
        self._ask(Operation.OBSERVE)
        return protocol.call_times(self._receive(8 * calls, "failed"))

    def peak_flops(self) -> int:
        """FLOP/s of the core's multiply-adds, measured now; 0 where there is no kernel for it."""
        return self._ask(Operation.PEAK)

    def read(self) -> dict[str, np.ndarray]:
        """A copy of every output."""
        import numpy as np

        return {
            spec.name: np.frombuffer(
                self._memory[self._offsets[spec] : self._offsets[spec] + spec.nbytes],
                dtype=spec.dtype,
            ).reshape(spec.shape)
            for spec in self.outputs
        }

    def infer(self, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """write, run and read."""
        self.write(values)
        self.run()
        return self.read()

    def peak_rss_bytes(self) -> int:
        """Peak resident memory so far; includes the emulator where there is one.

        VmHWM is what the kernel counted, but since Linux 6.2 its counters run behind by some pages
        for each CPU. Rss of smaps_rollup is exact, and the peak as well: a worker gives nothing back.
        """
        process = Path(f"/proc/{self._process.pid}")
        found = [_kilobytes(process / "status", "VmHWM:")]
        with suppress(OSError):  # Linux before 4.14, whose VmHWM is exact
            found.append(_kilobytes(process / "smaps_rollup", "Rss:"))
        return max(found) * 1024

    def close(self) -> None:
        """End the process and remove the shared file."""
        self._process.kill()
        self._process.communicate()
        self._memory.close()
        self._directory.cleanup()

    def _ask(self, operation: Operation) -> int:
        assert self._process.stdin is not None
        # A worker that is gone is told by the reply, which says how it ended.
        with suppress(BrokenPipeError):
            self._process.stdin.write(protocol.request(operation))
            self._process.stdin.flush()
        return self._reply("failed")

    def _reply(self, what: str) -> int:
        """Wait for one message; its value. Raises DeviceError."""
        return protocol.reply_value(self._receive(protocol.REPLY_BYTES, what), what)

    def _receive(self, size: int, what: str) -> bytes:
        assert self._process.stdout is not None
        data = b""
        deadline = time.monotonic() + _DEADLINE
        while len(data) < size:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
                raise DeviceError(f"the worker {what}: no answer within {_DEADLINE:.0f} s")
            part = os.read(self._process.stdout.fileno(), size - len(data))
            if not part:
                raise DeviceError(f"the worker {what}: {self._last_words()}", _CPU_HINT)
            data += part
        return data

    def _last_words(self) -> str:
        _, stderr = self._process.communicate()
        code = self._process.returncode
        lines: list[Any] = stderr.decode(errors="replace").strip().splitlines()
        if code < 0:
            return f"ended by signal {-code} ({signal.Signals(-code).name})"
        return f"exit status {code}" + (f", {lines[-1]}" if lines else "")


_CPU_HINT = "was the package compiled for this CPU? see `edgepack targets`"


def _kilobytes(file: Path, name: str) -> int:
    """The number on the line of a /proc file that starts with ``name``."""
    line = next(line for line in file.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1])


def _memory_directory() -> str | None:
    """/dev/shm where it can be used, so that tensors stay in memory."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None

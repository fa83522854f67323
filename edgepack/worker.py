"""A worker process of this machine, natively or under qemu-user: used by checks, run and bench.

The protocol is that of runtime/worker/serve.zig: tensors lie in a shared file (inputs, then
outputs, each at a multiple of 64 bytes), and 16-byte messages go over stdin and stdout.
"""

from __future__ import annotations

import mmap
import os
import select
import shutil
import signal
import struct
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from edgepack.artefacts import TensorSpec
from edgepack.errors import DeviceError, ToolchainError

if TYPE_CHECKING:
    import numpy as np

    from edgepack.targets import Target

_MAGIC = 0x31575045
_RUN = 1
_REPLY = struct.Struct("<Iiq")
_REQUEST = struct.Struct("<IIQ")
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
    ) -> None:
        """Start the process and wait until it is ready. Raises DeviceError with its last words."""
        self.inputs, self.outputs = inputs, outputs
        self._offsets, size = _layout((*inputs, *outputs))
        self._directory = tempfile.TemporaryDirectory(prefix="edgepack-", dir=_memory_directory())
        shared = Path(self._directory.name) / "tensors"
        with shared.open("w+b") as file:
            file.truncate(size)
            self._memory = mmap.mmap(file.fileno(), size)
        command = [*emulator, str(executable), "serve", str(weights), str(shared)]
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
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(_REQUEST.pack(_MAGIC, _RUN, 0))
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # the reply says how it ended
        return self._reply("failed")

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
        """Peak resident memory so far (VmHWM); includes the emulator where there is one."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024

    def close(self) -> None:
        """End the process and remove the shared file."""
        self._process.kill()
        self._process.communicate()
        self._memory.close()
        self._directory.cleanup()

    def _reply(self, what: str) -> int:
        """Wait for one message; its value. Raises DeviceError."""
        assert self._process.stdout is not None
        data = b""
        deadline = time.monotonic() + _DEADLINE
        while len(data) < _REPLY.size:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
                raise DeviceError(f"the worker {what}: no answer within {_DEADLINE:.0f} s")
            part = os.read(self._process.stdout.fileno(), _REPLY.size - len(data))
            if not part:
                raise DeviceError(f"the worker {what}: {self._last_words()}", _CPU_HINT)
            data += part
        magic, status, value = _REPLY.unpack(data)
        if magic != _MAGIC or status != 0:
            raise DeviceError(f"the worker {what}: status {status}")
        return int(value)

    def _last_words(self) -> str:
        _, stderr = self._process.communicate()
        code = self._process.returncode
        lines: list[Any] = stderr.decode(errors="replace").strip().splitlines()
        if code < 0:
            return f"ended by signal {-code} ({signal.Signals(-code).name})"
        return f"exit status {code}" + (f", {lines[-1]}" if lines else "")


_CPU_HINT = "was the package compiled for this CPU? see `edgepack targets`"


def _layout(specs: tuple[TensorSpec, ...]) -> tuple[dict[TensorSpec, int], int]:
    """Offset of each tensor at multiples of 64 bytes, and the total rounded up to a page."""
    offsets: dict[TensorSpec, int] = {}
    end = 0
    for spec in specs:
        offsets[spec] = end
        end += spec.nbytes + (-spec.nbytes % 64)
    return offsets, max(end + (-end % 4096), 4096)


def _memory_directory() -> str | None:
    """/dev/shm where it can be used, so that tensors stay in memory."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None

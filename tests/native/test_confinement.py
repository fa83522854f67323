"""What an executable that was built to do harm can do as a worker (data/evil_worker.c): nothing.

Each attempt is made twice: by the program as it is, where it succeeds, and under the agent.
"""

from __future__ import annotations

import errno
import mmap
import os
import signal
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from edgepack.targets import Target, detect_host
from edgepack.trust import PrivateKey
from tests.native.device_store import Device as PackageDevice
from tests.native.device_store import write
from tests.native.fake_device import Device, FakeModel, request, temporary_device, values, wait_until

SOURCE = Path(__file__).parent / "data" / "evil_worker.c"
INFER = "/v2/models/evil/infer"

ATTEMPTS = {
    "read a file": 1,
    "make a file in /tmp": 2,
    "make a file in ROOT": 3,
    "open its weights for writing": 4,
    "change its own blob": 5,
    "remove a file": 6,
    "make a directory": 7,
    "listen by TCP": 8,
    "listen by UDP": 9,
    "connect to the agent": 10,
    "make a process": 11,
    "execute a program": 12,
    "execute a program by execveat": 13,
    "signal the agent": 14,
    "signal everybody": 15,
    "trace the agent": 16,
    "read the agent's memory": 17,
    "bind the agent to a processor": 18,
    "limit the agent": 19,
    "make memory without a name": 20,
    "enter a new network": 21,
    "mount": 22,
    "make System V shared memory": 23,
    "open a file by openat2": 24,
    "send signals by a descriptor": 25,
    "control a device": 26,
    "send a descriptor": 27,
    "see whether a file is there": 28,
    "raise its priority": 29,
    "take half a gigabyte": 30,
}
EXECUTES = (12, 13)


@dataclass(frozen=True, kw_only=True)
class EvilModel(FakeModel):
    """Its worker is the evil program, its weights tell it where ROOT is."""

    root: Path

    @property
    def weights(self) -> bytes:
        return str(self.root).encode()

    def worker(self, target: Target | None = None) -> bytes:
        return build(target or detect_host())


@cache
def build(target: Target) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "evil"
        zig = [sys.executable, "-m", "ziglang", "cc", "-target", target.zig_static_triple]
        subprocess.run([*zig, "-static", "-s", "-Os", str(SOURCE), "-o", str(out)], check=True)
        return out.read_bytes()


@pytest.fixture(scope="module")
def served(agent: Path) -> Iterator[Device]:
    with temporary_device(agent) as device:
        device.install("m", {"1.0.0": FakeModel()})
        device.install("evil", {"1.0.0": EvilModel(root=device.root)})
        with device.serving():
            yield device


def order(device: Device, number: int) -> list[float]:
    """y after one run of the evil worker."""
    status, answer = device.ask("POST", INFER, request([number, 0, 0, 0]))
    assert status == 200, answer
    return values(answer)["y"]


def assert_serves(device: Device) -> None:
    status, answer = device.ask("POST", "/v2/models/m/infer", request([1, 2, 3, 4]))
    assert (status, values(answer)["y"]) == (200, [2, 3, 4, 5])


@pytest.mark.parametrize("attempt", ATTEMPTS.values(), ids=ATTEMPTS)
def test_an_evil_worker_fails_to(served: Device, attempt: int) -> None:
    victim = served.root / "victim"
    victim.write_text("x")
    before = {path: path.stat().st_mode for path in served.root.rglob("*")}
    done, cause, *_ = order(served, attempt)
    assert (done, cause) in ((0, errno.EPERM), (0, errno.EACCES), (0, errno.ENOMEM))
    assert {path: path.stat().st_mode for path in served.root.rglob("*")} == before
    assert not Path("/tmp/edgepack-evil").exists()
    assert_serves(served)


@pytest.fixture
def loose(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], mmap.mmap]]:
    """The evil program, started by nobody who confines it."""
    program, weights = tmp_path / "evil", tmp_path / "weights"
    program.write_bytes(build(detect_host()))
    program.chmod(0o755)
    weights.write_text(str(tmp_path))
    (tmp_path / "run").mkdir()
    (tmp_path / "victim").write_text("x")
    shared = os.memfd_create("test")
    os.ftruncate(shared, 4096)
    opened = os.open(weights, os.O_RDONLY)
    if opened != 4:
        os.dup2(opened, 4)
    # The parent that it signals and traces is a shell, not pytest.
    command = f'"{program}" serve fd:4 fd:{shared}; exit $?'
    process = subprocess.Popen(
        ["/bin/sh", "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[4, shared]
    )
    yield process, mmap.mmap(shared, 4096)
    process.kill()
    process.communicate()
    os.close(shared)

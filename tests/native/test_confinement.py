"""What an executable that was built to do harm can do as a worker (data/evil_worker.c): nothing.

Each attempt is made twice: by the program as it is, where it succeeds, and under the agent.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgepack.targets import Target
from edgepack.trust import PrivateKey
from tests.conftest import unavailable
from tests.native.device_store import Device as PackageDevice
from tests.native.device_store import write
from tests.native.fake_device import Device, FakeModel, c_program, request, temporary_device, values

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


@dataclass(frozen=True, kw_only=True)
class EvilModel(FakeModel):
    """Its worker is the evil program, its weights tell it where ROOT is."""

    root: Path

    @property
    def weights(self) -> bytes:
        return str(self.root).encode()

    def worker(self, target: Target | None = None) -> bytes:
        return evil()


def evil() -> bytes:
    """The program."""
    return c_program(SOURCE.read_text())


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


LOOSE = """
import mmap, os, socket, struct, subprocess, sys
program, root, order = sys.argv[1:]
server = socket.socket(socket.AF_UNIX)
server.bind(root + "/run/agent.sock")
server.listen()
shared = os.memfd_create("test")
os.ftruncate(shared, 4096)
memory = mmap.mmap(shared, 4096)
os.dup2(shared, 9)
os.dup2(os.open(root + "/weights", os.O_RDONLY), 4)
ours, its = socket.socketpair()
worker = subprocess.Popen(
    [program, "serve", "fd:4", "fd:9"], stdin=its, stdout=subprocess.PIPE, pass_fds=[4, 9], bufsize=0
)
assert len(worker.stdout.read(16)) == 16
memory[:4] = struct.pack("<f", float(order))
ours.sendall(struct.pack("<IIQ", 0x31575045, 1, 0))
answered = len(worker.stdout.read(16)) == 16
worker.stdout.close()
ours.close()
its.close()
code = worker.wait()
print(*struct.unpack_from("<2f", memory, 64) if answered else (code == 0, 0))
"""


@pytest.mark.parametrize("attempt", ATTEMPTS.values(), ids=ATTEMPTS)
def test_the_same_program_when_nobody_confines_it_can(tmp_path: Path, attempt: int) -> None:
    if os.geteuid() != 0:
        unavailable("only root may do all of it")
    root = tmp_path / "r"
    (root / "run").mkdir(parents=True)
    (root / "victim").write_text("x")
    (root / "weights").write_text(str(root))
    program = tmp_path / "evil"
    program.write_bytes(evil())
    program.chmod(0o755)
    command = [sys.executable, "-c", LOOSE, str(program), str(root), str(attempt)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    finally:
        Path("/tmp/edgepack-evil").unlink(missing_ok=True)
    assert done.stdout.split()[0] in ("1.0", "True"), done


def test_workers_hold_no_privileges_and_no_descriptors_but_the_protocols(served: Device) -> None:
    order(served, 1)
    for worker in served.workers():
        status = Path(f"/proc/{worker}/status").read_text()
        for line in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
            assert f"{line}:\t{0:016x}" in status
        assert "NoNewPrivs:\t1" in status
        assert "Seccomp:\t2" in status
        assert set(os.listdir(f"/proc/{worker}/fd")) <= {"0", "1", "2", "3", "4"}


def test_what_a_worker_writes_to_stderr_does_not_fill_the_agents_log(served: Device) -> None:
    log = served.root / "stderr"
    before = log.stat().st_size
    assert order(served, 31)[0] == 1
    assert log.stat().st_size == before


def test_a_worker_that_takes_memory_without_end_dies_of_it_and_is_started_again(
    served: Device,
) -> None:
    taken = order(served, ATTEMPTS["take half a gigabyte"])[2]
    assert 16 <= taken <= 36, "megabytes; it is known to need next to nothing"
    status, answer = served.ask("POST", INFER, request([32, 0, 0, 0]))
    assert (status, "the worker did not answer: signal 6" in answer["error"]) == (500, True), answer
    assert_serves(served)
    assert order(served, 1)[0] == 0, "it is served again"


def test_golden_runs_are_confined_as_well(
    tmp_path: Path, agent: Path, worker: bytes, key: PrivateKey
) -> None:
    """The fake worker that "roams" leaves with exit code 9 if it can open a file or make a process."""
    device = PackageDevice(root=tmp_path / "device", agent=agent)
    device.set_up(key)
    package = write(tmp_path / "a.epk", key, version="1.0.0", worker=worker, weights="roams")
    assert device.installed("install", package.path)["changed"] is True
    program, weights = tmp_path / "worker", tmp_path / "weights"
    program.write_bytes(worker)
    program.chmod(0o755)
    weights.write_text("roams")
    with (tmp_path / "shared").open("wb+") as shared:
        shared.truncate(4096)
        command = [str(program), "serve", str(weights), f"fd:{shared.fileno()}"]
        assert subprocess.run(command, pass_fds=[shared.fileno()], check=False).returncode == 9


BPF_LOAD, BPF_EQUAL, BPF_GIVE = 0x20, 0x15, 0x06
ERRNO, ALLOW = 0x00050000, 0x7FFF0000


def lack(*calls: int) -> None:
    """In a child before exec: as on a kernel that answers these calls with ENOSYS."""
    code = [(BPF_LOAD, 0, 0, 0)]
    for call in calls:
        code += [(BPF_EQUAL, 0, 1, call), (BPF_GIVE, 0, 0, ERRNO | errno.ENOSYS)]
    code.append((BPF_GIVE, 0, 0, ALLOW))
    program = b"".join(struct.pack("<HBBI", *instruction) for instruction in code)
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(program)
    header = struct.pack("HxxxxxxQ", len(code), ctypes.addressof(buffer))
    assert libc.prctl(38, 1, 0, 0, 0) == 0
    assert libc.prctl(22, 2, header, 0, 0) == 0


def test_a_kernel_without_landlock_is_told_once_and_is_no_error(idle: Device) -> None:
    landlock = (444, 445, 446)
    idle.install("evil", {"1.0.0": EvilModel(root=idle.root)})
    with idle.serving(before=lambda: lack(*landlock)):
        assert_serves(idle)
        assert order(idle, ATTEMPTS["read a file"])[:2] == [0, errno.EPERM]
    log = (idle.root / "stderr").read_text()
    assert log.count("no Landlock") == 1
    assert "no seccomp" not in log

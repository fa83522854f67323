from __future__ import annotations

import errno
import json
import mmap
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from edgepack.targets import Target, load_target
from tests.native.fake_device import FakeModel, wait_until

MAGIC = 0x31575045
RUN = struct.pack("<IIQ", MAGIC, 1, 0)
EMULATED = {
    "raspberrypi4": "qemu-aarch64-static",
    "armv7-neon": "qemu-arm-static",
    "riscv64-generic": "qemu-riscv64-static",
}


class Worker:
    """A worker process and the memory shared with it."""

    def __init__(
        self, command: Sequence[str | Path], weights: Path, *, shared_bytes: int = 4096
    ) -> None:
        self.fd = os.memfd_create("test")
        os.ftruncate(self.fd, shared_bytes)
        self.memory = mmap.mmap(self.fd, shared_bytes)
        self.started = time.perf_counter()
        self.process = subprocess.Popen(
            [*map(str, command), "serve", str(weights), f"fd:{self.fd}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=[self.fd],
            bufsize=0,
        )

    def reply(self) -> tuple[int, int]:
        """Status and value."""
        assert self.process.stdout is not None
        message = b""
        while len(message) < 16 and (piece := self.process.stdout.read(16 - len(message))):
            message += piece
        magic, status, value = struct.unpack("<IiQ", message)
        assert magic == MAGIC
        return status, value

    def send(self, message: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(message)

    def run(self, x: Sequence[float]) -> int:
        self.memory[: 4 * len(x)] = struct.pack(f"<{len(x)}f", *x)
        self.send(RUN)
        return self.reply()[0]

    def floats(self, offset: int, count: int) -> list[float]:
        return list(struct.unpack_from(f"<{count}f", self.memory, offset))

    def leave(self) -> tuple[int, str]:
        """Exit code and stderr after the end of its input."""
        _, stderr = self.process.communicate(timeout=20)
        return self.process.returncode, stderr.decode()


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Any]:
    started: list[Worker] = []

    def start(
        model: FakeModel | None = None,
        *,
        target: Target | None = None,
        before: Sequence[str] = (),
        **options: Any,
    ) -> Worker:
        model = model or FakeModel()
        program = tmp_path / f"worker{len(started)}"
        program.write_bytes(model.worker(target))
        program.chmod(0o755)
        weights = tmp_path / f"weights{len(started)}"
        weights.write_bytes(options.pop("weights", model.weights))
        started.append(Worker([*before, program], weights, **options))
        return started[-1]

    yield start
    for worker in started:
        worker.process.kill()
        worker.process.communicate()
        os.close(worker.fd)


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "worker"
    path.write_bytes(FakeModel().worker())
    path.chmod(0o755)
    return path


def test_it_runs_the_model_on_shared_memory(make: Any) -> None:
    worker = make()
    status, memory_bytes = worker.reply()
    assert status == 0
    assert memory_bytes >= 4096
    for run in range(1, 4):
        assert worker.run([1, 2, 3, run]) == 0
        assert worker.floats(64, 4) == [2, 3, 4, run + 1]
        assert struct.unpack_from("<2q", worker.memory, 128) == (run, 1)
    assert worker.leave() == (0, "")


def test_inputs_and_outputs_of_every_dtype_lie_at_multiples_of_64(make: Any) -> None:
    model = FakeModel(all_dtypes=True)
    worker = make(model)
    assert worker.reply()[0] == 0
    worker.memory[:] = bytes(4096)
    count = len(model.inputs)
    for index, spec in enumerate(model.inputs[1:], 1):
        worker.memory[64 * index : 64 * index + spec.nbytes] = os.urandom(spec.nbytes)
    assert worker.run([0, 0, 0, 0]) == 0
    for index in range(1, count):
        taken = worker.memory[64 * index : 64 * (index + 1)]
        assert worker.memory[64 * (count + 1 + index) : 64 * (count + 2 + index)] == taken


@pytest.mark.parametrize("target", EMULATED)
@pytest.mark.needs(*EMULATED.values())
def test_it_computes_the_same_on_other_processors(make: Any, target: str) -> None:
    model = FakeModel(weight=0.5)
    worker = make(model, target=load_target(target), before=[EMULATED[target]])
    assert worker.reply()[0] == 0
    assert worker.run([1, 2, 3, 4]) == 0
    assert worker.floats(64, 4) == [1.5, 2.5, 3.5, 4.5]
    assert worker.run([-1001, 0, 0, 0]) == -5
    assert worker.leave()[0] == 0


def test_the_runtime_stays_small() -> None:
    assert len(FakeModel().worker(load_target("raspberrypi4"))) < 60_000


def test_it_is_ready_within_ten_milliseconds_with_weights_mapped_not_copied(make: Any) -> None:
    model = FakeModel(elements=4 << 20)  # 16 MiB of weights
    best = 1.0
    for _ in range(10):
        worker = make(model, shared_bytes=40 << 20)
        assert worker.reply()[0] == 0
        best = min(best, time.perf_counter() - worker.started)
    assert best < 0.010
    maps = Path(f"/proc/{worker.process.pid}/maps").read_text()
    (weights,) = (line for line in maps.splitlines() if "/weights" in line)
    assert weights.split()[1] == "r--s"
    resident = Path(f"/proc/{worker.process.pid}/statm").read_text().split()[1]
    assert int(resident) * mmap.PAGESIZE < 4 << 20


def test_a_kernel_that_fails_is_answered_and_the_next_run_is_right(make: Any) -> None:
    worker = make()
    worker.reply()
    assert worker.run([-1001, 0, 0, 0]) == -5
    assert worker.run([1, 1, 1, 1]) == 0
    code, stderr = worker.leave()
    assert code == 0
    assert "kernel failed" in stderr


OBSERVE, CLOCK, MEMORY, PEAK = (struct.pack("<IIQ", MAGIC, op, 0) for op in (2, 3, 4, 5))


def test_an_observed_run_is_followed_by_the_time_of_each_call(make: Any) -> None:
    model = FakeModel(all_dtypes=True)
    worker = make(model)
    worker.reply()
    calls = 1 + sum(spec.name != "x" for spec in model.inputs)
    for run in (1, 2):
        worker.memory[:16] = struct.pack("<4f", 1, 2, 3, run)
        worker.send(OBSERVE)
        status, total = worker.reply()
        times = struct.unpack(f"<{calls}Q", worker.process.stdout.read(8 * calls))
        assert (status, 0 < sum(times) <= total) == (0, True)
    worker.memory[:4] = struct.pack("<f", -1001)
    worker.send(OBSERVE + CLOCK)
    assert worker.reply()[0] == -5
    assert worker.reply()[0] == 0, "no times follow a failure"
    assert worker.leave()[0] == 0


def test_it_tells_clock_memory_and_that_this_model_has_no_peak_kernel(
    make: Any, program: Path
) -> None:
    def clock() -> int:
        done = subprocess.run([program, "clock"], stdout=subprocess.PIPE, check=True)
        magic, status, value = struct.unpack("<IiQ", done.stdout)
        assert (magic, status) == (MAGIC, 0)
        return int(value)

    worker = make()
    worker.reply()
    before = clock()
    worker.send(CLOCK + MEMORY + PEAK)
    now, memory, peak = (worker.reply() for _ in range(3))
    assert before <= now[1] <= clock()
    rollup = Path(f"/proc/{worker.process.pid}/smaps_rollup").read_text()
    resident = next(line for line in rollup.splitlines() if line.startswith("Rss:")).split()[1]
    assert 0 < memory[1] <= int(resident) * 1024 + (1 << 20)
    assert peak == (0, 0)


@pytest.mark.parametrize(
    "message",
    [
        struct.pack("<IIQ", MAGIC ^ 1, 1, 0),
        struct.pack("<IIQ", MAGIC, 0, 0),
        struct.pack("<IIQ", MAGIC, 6, 0),
        struct.pack("<IIQ", MAGIC, 1, 1),
        RUN[:7],
    ],
    ids=["magic", "operation 0", "operation 6", "not zero", "cut"],
)
def test_a_request_that_is_none_ends_it(make: Any, message: bytes) -> None:
    worker = make()
    worker.reply()
    worker.send(message)
    assert worker.leave()[0] == 1


def test_weights_of_another_size_are_refused(make: Any) -> None:
    for weights in (b"", bytes(15), bytes(17)):
        worker = make(weights=weights)
        assert worker.reply() == (-3, 0)
        code, stderr = worker.leave()
        assert code == 1
        assert stderr.count("\n") == 1


def test_missing_weights_and_memory_are_told_by_errno(program: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.write_bytes(FakeModel().weights)
    small = tmp_path / "small"
    small.write_bytes(bytes(4095))
    for arguments, status in (
        ((tmp_path / "absent", "fd:9"), -100 - errno.ENOENT),
        ((weights, "fd:99"), -2),
        ((weights, "fd:x"), -100 - errno.EBADF),
        ((weights, tmp_path / "absent"), -100 - errno.ENOENT),
        ((weights, small), -2),
        ((tmp_path, "fd:9"), -3),
    ):
        command = [str(program), "serve", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, check=False, stdin=subprocess.DEVNULL)
        assert struct.unpack("<IiQ", done.stdout) == (MAGIC, status, 0), arguments
        assert done.returncode == 1


def test_shared_memory_may_be_a_file(program: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.write_bytes(FakeModel().weights)
    shared = tmp_path / "shared"
    shared.write_bytes(struct.pack("<4f", 1, 2, 3, 4) + bytes(4080))
    done = subprocess.run(
        [program, "serve", weights, shared], input=RUN, capture_output=True, check=True
    )
    assert len(done.stdout) == 32
    assert struct.unpack_from("<4f", shared.read_bytes(), 64) == (2, 3, 4, 5)


def test_it_holds_nothing_that_it_inherited_and_gains_no_privileges(make: Any) -> None:
    stray = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(stray, True)
    worker = make()
    worker.reply()
    os.close(stray)
    process = f"/proc/{worker.process.pid}"
    files = {entry.name: os.readlink(entry) for entry in Path(f"{process}/fd").iterdir()}
    counters = {files.pop("3"), files.pop("4")}
    assert counters == {f"{process}/status", f"{process}/smaps_rollup"}, "for its peak memory"
    assert set(files) == {"0", "1", "2"}
    assert "NoNewPrivs:\t1" in Path(f"/proc/{worker.process.pid}/status").read_text()


@pytest.mark.parametrize("order", [-1010, -1011, -1012, -1013, -1014, -1015])
def test_a_kernel_that_makes_a_system_call_of_its_own_is_ended(make: Any, order: int) -> None:
    """Sockets, files, processes, signals, programs, code. What is allowed goes on: see the other tests."""
    worker = make()
    worker.reply()
    status = Path(f"/proc/{worker.process.pid}/status").read_text()
    assert "Seccomp:\t2" in status
    assert "NoNewPrivs:\t1" in status
    worker.memory[:4] = struct.pack("<f", order)
    worker.send(RUN)
    assert worker.process.wait(20) == -signal.SIGSYS


@pytest.mark.needs("qemu-aarch64-static")
def test_where_there_are_no_filters_it_says_so_and_goes_on(make: Any) -> None:
    """The emulator has none; the same calls, which end the worker elsewhere, succeed there."""
    worker = make(target=load_target("raspberrypi4"), before=["qemu-aarch64-static"])
    assert worker.reply()[0] == 0
    assert [worker.run([order, 0, 0, 0]) for order in (-1010, -1011, -1015)] == [0, 0, 0]
    code, stderr = worker.leave()
    assert code == 0
    assert "no seccomp filters" in stderr


def test_it_leaves_when_its_parent_is_killed(program: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.write_bytes(FakeModel().weights)
    shared = tmp_path / "shared"
    shared.write_bytes(bytes(4096))
    script = f"""
import signal, subprocess
command = ["{program}", "serve", "{weights}", "{shared}"]
worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
worker.stdout.read(16)
print(worker.pid, flush=True)
signal.pause()
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        worker = Path("/proc") / parent.stdout.readline().decode().strip() / "cmdline"
        assert worker.read_bytes().startswith(str(program).encode())
        parent.kill()
    # A process that ended has no command line, whether somebody has reaped it yet or not.
    wait_until(lambda: not worker.exists() or worker.read_bytes() == b"")


def test_it_describes_what_was_linked_in(program: Path) -> None:
    model = FakeModel()
    done = subprocess.run([program, "describe"], capture_output=True, check=True)
    described = json.loads(done.stdout)
    assert described["abi"] == 1
    assert described["inputs"] == [spec.to_dict() for spec in model.inputs]
    assert described["outputs"] == [spec.to_dict() for spec in model.outputs]
    assert described["weights_bytes"] == 16
    assert described["arena_bytes"] == 4096
    assert described["memory_bytes"] > 4096


@pytest.mark.parametrize("arguments", [[], ["serve"], ["serve", "a"], ["describe", "x"], ["x"]])
def test_wrong_arguments_are_answered_with_the_usage(program: Path, arguments: list[str]) -> None:
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("worker: usage:")


def test_a_worker_that_nobody_listens_to_ends(make: Any) -> None:
    worker = make()
    worker.reply()
    assert worker.process.stdout is not None
    worker.process.stdout.close()
    worker.send(RUN)
    assert worker.process.wait(20) in (1, -signal.SIGPIPE)

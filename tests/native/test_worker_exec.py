"""A worker's process that hangs between fork and exec: nothing else waits for it, and it is killed.

strace stops it at its execveat, which is not carried out.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import unavailable
from tests.native.fake_device import Device, has_ended, request, wait_until

pytestmark = pytest.mark.needs("strace")

INFER = "/v2/models/m/infer"
X = request([1, 1, 1, 1])


def agent_pid(device: Device) -> int:
    assert device.server is not None
    return device.server.pid


@contextmanager
def execs_held_up(device: Device) -> Iterator[subprocess.Popen[bytes]]:
    """While the tracer that it yields runs; what was stopped stays so."""
    log = device.root / "trace"
    hold = "inject=execveat:retval=0:signal=STOP"
    command = ["strace", "-f", "-qq", "-o", str(log), "-e", "trace=execveat", "-e", hold]
    tracer = subprocess.Popen([*command, "-p", str(agent_pid(device))], stderr=subprocess.PIPE)

    def traced() -> bool:
        return f"TracerPid:\t{tracer.pid}\n" in status_of(agent_pid(device))

    try:
        wait_until(lambda: traced() or tracer.poll() is not None)
        if tracer.poll() is not None:
            assert tracer.stderr is not None
            unavailable(f"strace may not trace here: {tracer.stderr.read().decode().strip()}")
        yield tracer
    finally:
        tracer.terminate()
        tracer.communicate(timeout=20)


def status_of(pid: int) -> str:
    return Path(f"/proc/{pid}/status").read_text()


def infer_in_background(device: Device) -> tuple[threading.Thread, list[tuple[int, Any]]]:
    answers: list[tuple[int, Any]] = []
    thread = threading.Thread(target=lambda: answers.append(device.ask("POST", INFER, X)))
    thread.start()
    return thread, answers


def kill_the_worker(device: Device) -> None:
    (worker,) = device.workers()
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: has_ended(worker))


def held_up(device: Device, count: int) -> int:
    """The last of so many children that stand, or stood, before their exec."""

    def stopped() -> list[str]:
        return re.findall(
            r"^(\d+) +--- stopped by SIGSTOP", (device.root / "trace").read_text(), re.M
        )

    wait_until(lambda: len(stopped()) == count)
    return int(stopped()[-1])


def test_one_that_is_held_up_is_killed_and_the_next_serves_the_same_request(served: Device) -> None:
    with execs_held_up(served) as tracer:
        kill_the_worker(served)
        thread, answers = infer_in_background(served)
        first = held_up(served, 1)
        tracer.terminate()
        thread.join(20)
    ((status, answer),) = answers
    assert (status, answer["model_version"]) == (200, "1.0.0")
    (worker,) = served.workers()
    assert worker != first
    log = (served.root / "stderr").read_text()
    assert "a worker was not executed within 5000 ms and was killed" in log
    assert f"worker started again, process {worker}" in log


def test_two_that_are_held_up_are_refused_while_the_agent_answers_others(served: Device) -> None:
    with execs_held_up(served):
        kill_the_worker(served)
        thread, answers = infer_in_background(served)
        first = held_up(served, 1)
        assert served.ask("GET", "/v2/health/live")[0] == 200
        second = held_up(served, 2)
        assert has_ended(first)
        assert served.ask("GET", "/v2/models/m")[0] == 200
        thread.join(20)
        ((status, answer),) = answers
        assert (status, answer["error"]) == (
            503,
            "the worker was not executed within 5000 ms, 2 times",
        )
        wait_until(lambda: has_ended(second))
        assert served.workers() == []
    assert served.ask("POST", INFER, X)[0] == 200
    assert len(served.workers()) == 1

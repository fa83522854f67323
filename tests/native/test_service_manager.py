"""What systemd is told. The socket here is what systemd's own is: a Unix datagram socket."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.native.fake_device import Device

PERIOD = 0.1
"""Seconds: half of WATCHDOG_USEC, as sd_watchdog_enabled(3) advises."""


@contextmanager
def listening(name: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name.replace("@", "\0", 1))
        manager.settimeout(20)
        yield manager


def told(manager: socket.socket) -> dict[str, str]:
    lines = manager.recv(4096).decode().splitlines()
    return dict(line.split("=", 1) for line in lines)


def drain(manager: socket.socket) -> None:
    manager.settimeout(0)
    with suppress(BlockingIOError):
        while manager.recv(4096):
            pass


def environment(name: str, **more: str) -> dict[str, str]:
    return dict(os.environ) | {"NOTIFY_SOCKET": name} | more


@pytest.fixture(params=["path", "abstract"])
def name(request: pytest.FixtureRequest, idle: Device) -> str:
    return f"{idle.root}/notify" if request.param == "path" else f"@edgepack-test-{os.getpid()}"


def test_ready_is_said_when_models_are_served_and_stopping_at_the_end(
    idle: Device, name: str
) -> None:
    with listening(name) as manager:
        with idle.serving(environment=environment(name)):
            assert told(manager) == {"READY": "1", "STATUS": "1 models, 1 of them served"}
            assert idle.ask("GET", "/v2/models/m/ready")[0] == 200
        assert told(manager)["STOPPING"] == "1"
        manager.settimeout(0)
        with pytest.raises(BlockingIOError):
            manager.recv(1)  # nobody asked for signs of life


def test_signs_of_life_come_while_it_lives_and_stop_with_it(idle: Device, name: str) -> None:
    watched = environment(name, WATCHDOG_USEC=str(int(2 * PERIOD * 1e6)))
    with listening(name) as manager, idle.serving(environment=watched):
        assert idle.server is not None
        assert told(manager)["READY"] == "1"
        start = time.monotonic()
        for _ in range(5):
            assert told(manager)["WATCHDOG"] == "1"
        assert time.monotonic() - start > 3 * PERIOD, "no more than are needed"
        idle.server.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, idle.server.pid, os.WSTOPPED | os.WNOWAIT)
        drain(manager)
        manager.settimeout(10 * PERIOD)
        with pytest.raises(TimeoutError):
            manager.recv(4096)
        idle.server.send_signal(signal.SIGCONT)
        manager.settimeout(20)
        assert told(manager)["WATCHDOG"] == "1"


def test_a_watchdog_for_another_process_and_a_socket_that_is_none_are_passed_over(
    idle: Device, name: str
) -> None:
    other = environment(name, WATCHDOG_USEC="1000", WATCHDOG_PID="1")
    with listening(name) as manager, idle.serving(environment=other):
        assert told(manager)["READY"] == "1"
        manager.settimeout(3 * PERIOD)
        with pytest.raises(TimeoutError):
            manager.recv(4096)
    for absent in ("/nowhere/at/all", "relative", "@", ""):
        with idle.serving(environment=environment(absent, WATCHDOG_USEC="1000")):
            assert idle.ask("GET", "/v2/health/ready")[0] == 200


def test_workers_know_nothing_of_it(idle: Device, name: str) -> None:
    with listening(name), idle.serving(environment=environment(name)):
        (worker,) = idle.workers()
        assert Path(f"/proc/{worker}/environ").read_bytes() == b""

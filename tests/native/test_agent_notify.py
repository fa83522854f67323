"""What install does when a server runs: it is told, and may say no."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgepack.trust import PrivateKey
from tests.native.device_store import Device

pytestmark = pytest.mark.also_on("aarch64")

REFUSAL = b'{"error":"the worker of demo does not start"}'


@contextmanager
def server(device: Device, *statuses: int) -> Iterator[list[str]]:
    """Answers one request after another with these statuses; gives the request lines it got."""
    path = device.root / "run" / "agent.sock"
    path.parent.mkdir(exist_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    requests: list[str] = []

    def answer() -> None:
        for status in statuses:
            connection, _ = listener.accept()
            with connection:
                requests.append(connection.recv(4096).split(b"\r\n")[0].decode())
                body = b"{}" if status == 200 else REFUSAL
                head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n"
                connection.sendall(head.encode() + body)

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    try:
        yield requests
        thread.join(timeout=60)
        assert not thread.is_alive(), requests
    finally:
        listener.close()
        path.unlink()


def test_a_running_server_is_told_of_every_switch(
    tmp_path: Path, device: Device, key: PrivateKey
) -> None:
    load = "POST /v2/repository/models/demo/load HTTP/1.0"
    with server(device, 200, 200, 200, 404, 200) as requests:
        for version in ("1.0.0", "2.0.0"):
            device.write(tmp_path / "a.epk", key, version=version)
            device.installed("install", tmp_path / "a.epk")
        device.installed("rollback")
        # A server of an older agent, which tells no status, serves all the same.
        assert device.installed("status")["serving"] is True
    assert requests == [
        *(load, load, load),
        "GET /v2/status HTTP/1.0",
        "GET /v2/health/live HTTP/1.0",
    ]


def test_where_the_server_cannot_load_it_the_old_version_comes_back(
    tmp_path: Path, device: Device, key: PrivateKey
) -> None:
    device.write(tmp_path / "1.epk", key, version="1.0.0")
    device.installed("install", tmp_path / "1.epk")
    before = device.contents()
    device.write(tmp_path / "2.epk", key, version="2.0.0")
    with server(device, 503, 200) as requests:
        answer = device.run("install", tmp_path / "2.epk")
    assert answer.refused == (10, "worker")
    assert "does not start" in answer.json["reason"]
    assert len(requests) == 2  # the second puts the server onto the old state again
    assert device.contents() == before
    assert device.installed("install", tmp_path / "2.epk")["version"] == "2.0.0"


def test_where_the_server_cannot_load_the_first_version_nothing_is_installed(
    tmp_path: Path, device: Device, key: PrivateKey
) -> None:
    device.write(tmp_path / "1.epk", key, version="1.0.0")
    with server(device, 500, 404):
        assert device.run("install", tmp_path / "1.epk").refused == (10, "worker")
    assert device.contents() == {}
    assert device.current() is None


def test_a_socket_that_nobody_listens_on_is_no_obstacle(
    tmp_path: Path, device: Device, key: PrivateKey
) -> None:
    (device.root / "run").mkdir()
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(device.root / "run" / "agent.sock"))
    left.close()
    device.write(tmp_path / "1.epk", key, version="1.0.0")
    assert device.installed("install", tmp_path / "1.epk")["changed"] is True
    assert device.installed("status")["serving"] is False

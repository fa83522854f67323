"""Loopback TCP: off unless asked for, and not for web pages."""

from __future__ import annotations

import http.client
import json
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import unavailable
from tests.native.fake_device import Device, request, run_in_progress, values

pytestmark = pytest.mark.also_on("aarch64")

INFER = "/v2/models/m/infer"


@pytest.fixture
def served(idle: Device) -> Iterator[Device]:
    with idle.serving("--tcp", "0"):
        yield idle


def status_of(device: Device, *headers: tuple[str, str], method: str = "GET") -> tuple[int, str]:
    """Status and body of a request with exactly these headers."""
    connection = http.client.HTTPConnection(device.tcp_address, timeout=30)
    connection.putrequest(method, "/v2", skip_host=True)
    for name, value in headers:
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


@pytest.mark.also_on("armv7", "riscv64")
def test_requests_are_answered_on_both_sockets(served: Device) -> None:
    assert served.tcp_address.startswith("127.0.0.1:")
    connection = http.client.HTTPConnection(served.tcp_address, timeout=30)
    for calls in (1, 3):
        connection.request("POST", INFER, json.dumps(request([1, 2, 3, 4])))
        answer = json.loads(connection.getresponse().read())
        assert values(answer) == {"y": [2, 3, 4, 5], "calls": [calls, 1]}
        assert served.ask("POST", INFER, request([1, 2, 3, 4]))[0] == 200
    connection.close()


def test_nothing_listens_on_tcp_unless_it_is_asked_for(idle: Device) -> None:
    with idle.serving():
        assert idle.server is not None
        inodes = set()
        for link in Path(f"/proc/{idle.server.pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # a connection that ends
                inodes.update(re.findall(r"^socket:\[(\d+)\]$", str(link.readlink())))
        assert inodes
        for table in ("tcp", "tcp6"):
            lines = Path(f"/proc/net/{table}").read_text().splitlines()[1:]
            assert not inodes & {line.split()[9] for line in lines}
    assert "listening at" not in (idle.root / "stderr").read_text()


def test_ipv6_loopback_is_loopback_too(idle: Device) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        unavailable("this machine has no IPv6 loopback")
    with idle.serving("--tcp", "[::1]:0"):
        assert idle.tcp_address.startswith("[::1]:")
        assert status_of(idle, ("Host", idle.tcp_address))[0] == 200


@pytest.mark.parametrize("address", ["0.0.0.0:80", "192.168.0.1:80", "[::]:80", "x", "65536", ""])
def test_an_address_that_is_not_loopback_is_refused(idle: Device, address: str) -> None:
    command = idle.command("serve", "--tcp", address)
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 2
    assert "--tcp" in done.stderr.splitlines()[0]


def test_a_port_that_is_taken_is_told(idle: Device) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        command = idle.command("serve", "--tcp", str(taken.getsockname()[1]))
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 10
    assert "cannot listen at 127.0.0.1:" in done.stderr
    assert not idle.socket.exists()


def test_what_a_web_page_could_send_is_refused_over_tcp(served: Device) -> None:
    port = served.tcp_address.rpartition(":")[2]
    for host in ("localhost", "LOCALHOST", f"localhost:{port}", f"127.0.0.1:{port}", "[::1]"):
        assert status_of(served, ("Host", host))[0] == 200
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "10.0.0.1", ""):
        status, text = status_of(served, ("Host", host))
        assert (status, "Host must be localhost" in text) == (403, True)
    assert status_of(served)[0] == 403
    for origin in ("http://evil.example", "null", f"http://localhost:{port}"):
        for method in ("GET", "POST", "OPTIONS"):
            headers = (("Host", "localhost"), ("Origin", origin))
            status, text = status_of(served, *headers, method=method)
            assert (status, "web pages" in text) == (403, True)
    # No page reaches a Unix socket: there both mean nothing.
    assert served.ask("GET", "/v2", Host="evil.example", Origin="null")[0] == 200


def test_connections_over_tcp_leave_room_for_the_unix_socket(served: Device) -> None:
    held = [http.client.HTTPConnection(served.tcp_address, timeout=30) for _ in range(16)]
    statuses = []
    for connection in [*held, http.client.HTTPConnection(served.tcp_address, timeout=30)]:
        connection.request("GET", "/v2")
        answer = connection.getresponse()
        answer.read()
        statuses.append(answer.status)
        held.append(connection)
    assert 200 in statuses
    assert statuses[-1] == 503
    for _ in range(3):
        assert served.ask("POST", INFER, request([1, 1, 1, 1]))[0] == 200
    for connection in held:
        connection.close()


def test_it_ends_when_requests_over_tcp_are_answered(served: Device) -> None:
    idle = http.client.HTTPConnection(served.tcp_address, timeout=30)
    idle.request("GET", "/v2")
    idle.getresponse().read()
    with run_in_progress(served, -1004) as answers:
        assert served.server is not None
        served.server.terminate()
    assert answers[0][0] == 200
    assert served.server.wait(20) == 0
    idle.close()

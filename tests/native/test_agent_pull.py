from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from edgepack.trust import PrivateKey
from tests.native.device_store import Device, publish

pytestmark = pytest.mark.also_on("aarch64")


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def served(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def place(tmp_path: Path, device: Device, key: PrivateKey) -> Path:
    """Version 1.0.0 as a channel publishes it."""
    return publish(device.write(tmp_path / "1.epk", key, version="1.0.0"), tmp_path / "web")


@pytest.fixture(params=["directory", "http", "prefix", "name"])
def source(request: pytest.FixtureRequest, place: Path, tmp_path: Path) -> Iterator[str]:
    """The same place as a directory, a web root, a bucket prefix with a slash, a host by its name."""
    if request.param == "directory":
        yield str(place)
        return
    with served(partial(_Quiet, directory=str(tmp_path))) as url:
        host = url.replace("127.0.0.1", "localhost") if request.param == "name" else url
        yield f"{host}/web/" if request.param == "prefix" else f"{host}/web"


def test_what_is_published_is_pulled_and_then_what_is_newer(
    tmp_path: Path, source: str, place: Path, device: Device, key: PrivateKey
) -> None:
    first = {"ok": True, "model": "demo", "version": "1.0.0", "previous": None, "changed": True}
    assert device.installed("pull", source, "demo") == {"ok": True, "models": [first]}
    assert device.installed("pull", source)["models"] == [first | {"changed": False}]
    publish(device.write(tmp_path / "2.epk", key, version="1.1.0"), place)
    second = first | {"version": "1.1.0", "previous": "1.0.0"}
    assert device.installed("pull", source)["models"] == [second]
    device.assert_consistent()


def test_a_version_that_was_rolled_back_from_comes_again_only_to_who_names_it(
    tmp_path: Path, device: Device, key: PrivateKey
) -> None:
    place = tmp_path / "place"
    for version in ("1.0.0", "2.0.0"):
        publish(device.write(tmp_path / f"{version}.epk", key, version=version), place)
        device.installed("pull", place, "demo")
    device.installed("rollback")
    (unasked,) = device.installed("pull", place)["models"]
    assert (unasked["version"], unasked["changed"]) == ("1.0.0", False)
    device.assert_consistent()
    assert device.installed("pull", place, "demo")["models"][0]["version"] == "2.0.0"
    device.installed("rollback")
    publish(device.write(tmp_path / "3.epk", key, version="3.0.0"), place)
    assert device.installed("pull", place)["models"][0]["version"] == "3.0.0"


def test_a_directory_is_pulled_whole_and_other_devices_models_are_left(
    tmp_path: Path, place: Path, device: Device, key: PrivateKey
) -> None:
    from tests import package_samples as samples

    other = samples.write(tmp_path / "o.epk", "raspberrypi4", name="other", version="1.0.0")
    publish(samples.signed(other, key), place)
    models = device.installed("pull", place)["models"]
    assert [model["model"] for model in models] == ["demo"]
    assert device.run("pull", place, "other").refused == (10, "target")


def test_an_older_pointer_is_refused(
    tmp_path: Path, source: str, place: Path, device: Device, key: PrivateKey
) -> None:
    old = (place / "models/demo.json").read_bytes()
    publish(device.write(tmp_path / "2.epk", key, version="1.1.0"), place)
    device.installed("pull", source, "demo")
    (place / "models/demo.json").write_bytes(old)
    assert device.run("pull", source, "demo").refused == (8, "version")


def test_a_pointer_under_another_models_name_is_refused(
    source: str, place: Path, device: Device
) -> None:
    shutil.copy(place / "models/demo.json", place / "models/other.json")
    assert device.run("pull", source, "other").refused == (8, "statement")


def test_damaged_cut_and_missing_blobs_are_refused(
    source: str, place: Path, device: Device
) -> None:
    before = device.contents()
    for path in sorted((place / "blobs/sha256").iterdir()):
        good = path.read_bytes()
        for bad in (good[:-1], good + b"x", bytes([good[0] ^ 1]) + good[1:], None):
            path.unlink() if bad is None else path.write_bytes(bad)
            answer = device.run("pull", source, "demo")
            if answer.code == 0:  # a document that is in the signed pointer, or made from it
                device.installed("status")
                (device.root / "models/demo/state.json").unlink()
            else:
                assert answer.code in (7, 8), answer.json
                assert device.contents() == before
            path.write_bytes(good)
    assert device.installed("pull", source, "demo")["models"][0]["version"] == "1.0.0"


def test_places_that_are_not_there(tmp_path: Path, device: Device) -> None:
    assert device.run("pull", tmp_path / "absent", "demo").refused == (9, "source")
    assert device.run("pull", tmp_path, "demo").refused == (9, "source")
    assert device.run("pull", "http://127.0.0.1:1/x", "demo").refused == (9, "source")
    assert device.run("pull", "http://no-such-host.invalid/x", "demo").refused == (9, "source")
    assert device.run("pull", "https://127.0.0.1/x", "demo").refused == (9, "source")
    assert device.run("pull", "ftp://127.0.0.1/x", "demo").refused == (2, "usage")
    assert device.run("pull", "http://127.0.0.1:1/x").refused == (2, "usage")


class _Scripted(BaseHTTPRequestHandler):
    """Answers with raw bytes, whatever is asked."""

    raw = b""

    def do_GET(self) -> None:
        self.wfile.write(self.raw)
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"hello\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nno length",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nx",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\nx",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx",
        b"HTTP/1.1 302 Found\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: https://127.0.0.1/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10_000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 6000000\r\n\r\n" + b"x" * 6_000_000,
    ],
    ids=lambda raw: raw[:40].decode().replace("\r\n", "|"),
)
def test_a_server_that_answers_nonsense_is_refused(device: Device, raw: bytes) -> None:
    with served(type("Handler", (_Scripted,), {"raw": raw})) as url:
        assert device.run("pull", url, "demo").refused == (9, "source")


class _Redirecting(_Quiet):
    """Sends everything below /old to /web once more."""

    def do_GET(self) -> None:
        if not self.path.startswith("/old/"):
            return super().do_GET()
        self.send_response(307)
        self.send_header("Location", "/web/" + self.path.removeprefix("/old/"))
        self.send_header("Content-Length", "0")
        self.end_headers()
        return None


def test_redirects_are_followed(tmp_path: Path, place: Path, device: Device) -> None:
    assert place.name == "web"
    with served(partial(_Redirecting, directory=str(tmp_path))) as url:
        assert device.installed("pull", f"{url}/old", "demo")["models"][0]["version"] == "1.0.0"


class _Chunked(_Quiet):
    """Sends files as chunks of odd sizes."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        data = Path(self.translate_path(self.path)).read_bytes()
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for start in range(0, len(data), 777):
            piece = data[start : start + 777]
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")


def test_chunked_answers_are_read(tmp_path: Path, place: Path, device: Device) -> None:
    assert place.name == "web"
    with served(partial(_Chunked, directory=str(tmp_path))) as url:
        assert device.installed("pull", f"{url}/web", "demo")["models"][0]["version"] == "1.0.0"

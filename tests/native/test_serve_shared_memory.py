"""The system shared memory extension: regions of /dev/shm, each for the user that owns it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from tests.conftest import unavailable
from tests.native.fake_device import Device, request, values, wait_until

pytestmark = pytest.mark.also_on("aarch64")

INFER = "/v2/models/m/infer"
SHARED = "/v2/systemsharedmemory"
X = np.array([[1, 2], [3, 4.5]], np.float32)


@pytest.fixture
def served(idle: Device) -> Iterator[Device]:
    with idle.serving("--tcp", "0"):
        yield idle


@pytest.fixture
def memory() -> Iterator[Path]:
    """A file of 4096 bytes where POSIX shared memory is."""
    path = Path("/dev/shm") / f"edgepack-test.{uuid.uuid4().hex}"
    path.write_bytes(bytes(4096))
    path.chmod(0o600)
    yield path
    path.unlink(missing_ok=True)


def register(
    device: Device, name: str, memory: Path, *, offset: int = 0, byte_size: int = 4096
) -> tuple[int, Any]:
    body = {"key": f"/{memory.name}", "offset": offset, "byte_size": byte_size}
    return device.ask("POST", f"{SHARED}/region/{name}/register", body)


def unregister(device: Device, name: str) -> None:
    assert device.ask("POST", f"{SHARED}/region/{name}/unregister", {}) == (200, {})


def place(region: str, byte_size: int, offset: int = 0) -> dict[str, Any]:
    where = {"shared_memory_region": region, "shared_memory_byte_size": byte_size}
    return {"parameters": where | ({"shared_memory_offset": offset} if offset else {})}


def shared_request(*, offset: int = 0, byte_size: int = 16, **more: Any) -> dict[str, Any]:
    tensor = {"name": "x", "shape": [2, 2], "datatype": "FP32"} | place("r", byte_size, offset)
    return {"inputs": [tensor]} | more


def write(memory: Path, offset: int, array: np.ndarray) -> None:
    with memory.open("r+b") as file:
        file.seek(offset)
        file.write(array.tobytes())


@pytest.mark.also_on("armv7", "riscv64")
def test_tensors_are_taken_from_and_put_into_shared_memory(served: Device, memory: Path) -> None:
    write(memory, 1000 + 64, X)
    assert register(served, "r", memory, offset=1000, byte_size=3000) == (200, {})
    outputs = [{"name": "y"} | place("r", 100, 2000), {"name": "calls"}]
    status, answer = served.ask("POST", INFER, shared_request(offset=64, outputs=outputs))
    assert status == 200, answer
    y, calls = answer["outputs"]
    assert y == {"name": "y", "datatype": "FP32", "shape": [2, 2]} | place("r", 16, 2000)
    assert calls["data"] == [1, 1]
    content = memory.read_bytes()
    assert content[3000:3016] == (X + np.float32(1)).tobytes()
    assert set(content[3016:]) == {0}
    # All outputs in shared memory, the input in JSON.
    outputs = [{"name": "calls"} | place("r", 16), {"name": "y"} | place("r", 16, 2984)]
    more: dict[str, Any] = {"outputs": outputs, "parameters": {"binary_data_output": True}}
    assert served.ask("POST", INFER, request([1, 1, 1, 1], **more))[0] == 200
    content = memory.read_bytes()
    assert np.frombuffer(content[1000:1016], np.int64).tolist() == [2, 1]
    assert np.frombuffer(content[3984:4000], np.float32).tolist() == [2, 2, 2, 2]


@pytest.mark.also_on("armv7", "riscv64")
def test_the_same_request_again_sees_what_has_changed(served: Device, memory: Path) -> None:
    """The agent does not parse it again; only the JSON is as before."""
    asked = shared_request(outputs=[{"name": "y"} | place("r", 16, 32), {"name": "calls"}])
    register(served, "r", memory, byte_size=64)
    with closing(served.connect()) as client:
        for factor in (1, -2, 3):
            write(memory, 0, X * np.float32(factor))
            assert client.ask("POST", INFER, asked)[0] == 200
            y = np.frombuffer(memory.read_bytes()[32:48], np.float32)
            assert y.tolist() == (X * np.float32(factor) + np.float32(1)).ravel().tolist()
        os.truncate(memory, 16)
        _, answer = client.ask("POST", INFER, asked)
        assert answer == {"error": "region r is shorter than when it was registered"}
        os.truncate(memory, 4096)
        unregister(served, "r")
        _, answer = client.ask("POST", INFER, asked)
        assert answer == {"error": "no region r is registered"}
        register(served, "r", memory, byte_size=40)
        _, answer = client.ask("POST", INFER, asked)
        assert answer == {"error": "16 bytes at 32 are not within the 40 bytes of region r"}
        unregister(served, "r")
        register(served, "r", memory, offset=1024, byte_size=64)
        write(memory, 1024, X)
        assert client.ask("POST", INFER, asked)[0] == 200
        assert memory.read_bytes()[1056:1072] == (X + np.float32(1)).tobytes()
        # Loaded again, it is another, whose runs count from one.
        assert served.ask("POST", "/v2/repository/models/m/unload", {})[0] == 200
        assert client.ask("POST", INFER, asked)[0] == 503
        assert served.ask("POST", "/v2/repository/models/m/load", {})[0] == 200
        _, answer = client.ask("POST", INFER, asked)
        assert answer["outputs"][1]["data"] == [1, 1]


def test_regions_are_listed_and_go_when_they_are_unregistered(served: Device, memory: Path) -> None:
    for name, offset in (("r", 0), ("S-2", 96)):
        assert register(served, name, memory, offset=offset, byte_size=4000) == (200, {})
    key = f"/{memory.name}"
    r = {"name": "r", "key": key, "offset": 0, "byte_size": 4000}
    both = [r, r | {"name": "S-2", "offset": 96}]
    _, listed = served.ask("GET", f"{SHARED}/status")
    assert sorted(listed, key=lambda region: int(region["offset"])) == both
    assert served.ask("GET", f"{SHARED}/region/r/status") == (200, [r])
    reason = "region r is registered already"
    assert register(served, "r", memory) == (400, {"error": reason})
    for _ in range(2):  # one that is gone is gone
        assert served.ask("POST", f"{SHARED}/region/r/unregister", {}) == (200, {})
        assert served.ask("GET", f"{SHARED}/region/r/status") == (200, [])
    assert served.ask("POST", INFER, shared_request())[0] == 404
    assert served.ask("POST", f"{SHARED}/unregister", {}) == (200, {})
    assert served.ask("GET", f"{SHARED}/status") == (200, [])


def test_places_that_do_not_fit_are_refused(served: Device, memory: Path) -> None:
    assert register(served, "r", memory, byte_size=4000)[0] == 200
    both = request([1, 1, 1, 1])
    both["inputs"][0] |= place("r", 16)
    half = shared_request()
    del half["inputs"][0]["parameters"]["shared_memory_region"]
    for body, reason in (
        (shared_request(byte_size=12), 'input "x": shared_memory_byte_size is 12, expected 16'),
        (shared_request(offset=3985), "16 bytes at 3985 are not within the 4000 bytes of region r"),
        (shared_request(offset=-1), "shared_memory_offset is not a number of bytes"),
        (shared_request(offset=2**63), "shared_memory_offset is not a number of bytes"),
        (half, "shared_memory_region and shared_memory_byte_size need each other"),
        (both, 'input "x" has its data twice'),
        (
            request([0, 0, 0, 0], outputs=[{"name": "y"} | place("r", 15)]),
            'output "y": shared_memory_byte_size is 15, and 16 are needed',
        ),
        (
            request([0, 0, 0, 0], outputs=[{"name": "y"} | place("r", 4001)]),
            "4001 bytes at 0 are not within the 4000 bytes of region r",
        ),
        (
            request([0, 0, 0, 0], outputs=[{"name": "y"} | place("r", 16, 3985)]),
            "16 bytes at 3985 are not within the 4000 bytes of region r",
        ),
    ):
        assert served.ask("POST", INFER, body) == (400, {"error": reason})
    other = request([0, 0, 0, 0], outputs=[{"name": "y"} | place("other", 16)])
    assert served.ask("POST", INFER, other) == (404, {"error": "no region other is registered"})
    assert set(memory.read_bytes()) == {0}  # no run, no output


def test_memory_that_shrinks_is_told_and_harms_nobody(served: Device, memory: Path) -> None:
    assert register(served, "r", memory)[0] == 200
    into_it = request([1, 1, 1, 1], outputs=[{"name": "y"} | place("r", 16, 4080)])
    assert served.ask("POST", INFER, into_it)[0] == 200
    os.truncate(memory, 4090)
    shrunk = (400, {"error": "region r is shorter than when it was registered"})
    assert served.ask("POST", INFER, shared_request(offset=4080)) == shrunk
    assert served.ask("POST", INFER, into_it) == shrunk
    assert memory.stat().st_size == 4090
    os.truncate(memory, 0)
    assert served.ask("POST", INFER, shared_request()) == shrunk
    # Shrunk and grown while requests run: each is answered, with one or the other.
    stop = threading.Event()

    def resize() -> None:
        while not stop.is_set():
            os.truncate(memory, 0)
            os.truncate(memory, 4096)

    thread = threading.Thread(target=resize)
    thread.start()
    connection = served.connect()
    whole = shared_request(outputs=into_it["outputs"])
    statuses = {connection.ask("POST", INFER, whole)[0] for _ in range(300)}
    stop.set()
    thread.join()
    connection.close()
    assert statuses <= {200, 400}
    assert served.ask("POST", INFER, request([1, 1, 1, 1]))[0] == 200


def test_what_is_no_shared_memory_is_refused(served: Device, memory: Path) -> None:
    link, pipe = memory.with_name(f"{memory.name}.link"), memory.with_name(f"{memory.name}.pipe")
    folder = memory.with_name(f"{memory.name}.d")
    link.symlink_to(memory)
    os.mkfifo(pipe)
    folder.mkdir()
    try:
        for odd, status in ((link, 403), (pipe, 403), (folder, 400)):
            assert register(served, "r", odd, byte_size=1)[0] == status, odd
    finally:
        link.unlink()
        pipe.unlink()
        folder.rmdir()
    for key in (
        "",
        "/",
        "..",
        "/../etc/passwd",
        "/a/b",
        "//etc",
        "/.hidden",
        "/\u00e4",
        "/" + "k" * 200,
    ):
        body = {"key": key, "byte_size": 1}
        status, answer = served.ask("POST", f"{SHARED}/region/r/register", body)
        assert (status, list(answer)) == (400, ["error"]), key
    for byte_size, offset in ((0, 0), (4097, 0), (4096, 1), (1, 2**60), (2**60, 0), (2**31, 0)):
        assert register(served, "r", memory, byte_size=byte_size, offset=offset)[0] == 400
    for name in ("%2e", "n" * 65, ".r"):
        assert register(served, name, memory)[0] == 400
    assert served.ask("GET", f"{SHARED}/status") == (200, [])


def test_regions_and_descriptors_are_bounded(served: Device, memory: Path) -> None:
    assert served.server is not None
    descriptors = Path(f"/proc/{served.server.pid}/fd")
    before = len(list(descriptors.iterdir()))
    statuses = [register(served, f"r{number}", memory)[0] for number in range(20)]
    assert statuses == [200] * 16 + [503] * 4
    served.ask("POST", f"{SHARED}/unregister", {})
    for _ in range(100):
        assert register(served, "r", memory)[0] == 200
        outputs = [
            {"name": "y"} | place("r", 16),
            {"name": "y"},
        ]  # refused when one is held already
        assert served.ask("POST", INFER, request([1, 1, 1, 1], outputs=outputs))[0] == 400
        assert served.ask("POST", INFER, shared_request(outputs=outputs[:1]))[0] == 200
        assert served.ask("POST", f"{SHARED}/region/r/unregister", {})[0] == 200
    wait_until(lambda: len(list(descriptors.iterdir())) <= before)  # the last connection closes yet


AS_ANOTHER_USER = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.native.fake_device import UnixConnection
os.setuid(12345)
connection = UnixConnection(Path(sys.argv[2]))
answers = [connection.ask(*question) for question in json.loads(sys.argv[3])]
print(json.dumps(answers))
"""


def test_a_user_gets_at_no_other_users_memory_by_way_of_the_agent(
    served: Device, memory: Path, tmp_path: Path
) -> None:
    if os.geteuid() != 0:
        unavailable("only root can become another user")
    theirs = memory.with_name(f"{memory.name}.theirs")
    theirs.write_bytes(bytes(64))
    os.chown(theirs, 12345, 12345)
    for folder in (served.root, served.root / "run"):
        folder.chmod(0o755)
    served.socket.chmod(0o666)
    write(memory, 0, X)
    assert register(served, "r", memory)[0] == 200
    ours = {"key": f"/{memory.name}", "byte_size": 4096}
    questions = [
        ("POST", f"{SHARED}/region/q/register", ours),
        ("GET", f"{SHARED}/status", None),
        ("POST", INFER, shared_request()),
        ("POST", INFER, request([1, 1, 1, 1], outputs=[{"name": "y"} | place("r", 16)])),
        ("POST", f"{SHARED}/unregister", {}),
        # A name of another's is free to them, and a file of their own is theirs to use.
        ("POST", f"{SHARED}/region/r/register", {"key": f"/{theirs.name}", "byte_size": 64}),
        ("POST", INFER, shared_request()),
    ]
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", AS_ANOTHER_USER, str(root), str(served.socket)]
    try:
        done = subprocess.run(
            [*command, json.dumps(questions)], capture_output=True, text=True, check=True
        )
    finally:
        theirs.unlink()
    answers = json.loads(done.stdout)
    assert [status for status, _ in answers] == [403, 200, 404, 404, 200, 200, 200]
    assert "belongs to another user" in answers[0][1]["error"]
    assert answers[1][1] == []
    assert values(answers[-1][1])["y"] == [1, 1, 1, 1]
    # Ours is still there, and so are its contents.
    assert values(served.ask("POST", INFER, shared_request())[1])["y"] == (X + 1).ravel().tolist()


def test_over_tcp_there_is_no_shared_memory(served: Device, memory: Path) -> None:
    extensions = ["binary_tensor_data", "model_repository"]
    with triton.InferenceServerClient(served.tcp_address) as client:
        assert client.get_server_metadata()["extensions"] == extensions
        tensor = triton.InferInput("x", [2, 2], "FP32")
        tensor.set_shared_memory("r", 16)
        refused: list[Callable[[], Any]] = [
            lambda: client.register_system_shared_memory("r", f"/{memory.name}", 4096),
            lambda: client.get_system_shared_memory_status(),
            lambda: client.unregister_system_shared_memory(),
            lambda: client.infer("m", [tensor]),
        ]
        for ask in refused:
            with pytest.raises(InferenceServerException, match="Unix socket only") as caught:
                ask()
            assert caught.value.status() == "403"
    assert served.ask("GET", "/v2")[1]["extensions"] == [*extensions, "system_shared_memory"]

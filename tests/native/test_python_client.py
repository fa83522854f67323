"""The one-file Python client: one contract over every way that tensors can go."""

from __future__ import annotations

import ast
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgepack.clients.python import edgepack_client
from edgepack.clients.python.edgepack_client import AgentError, Client, Tensor
from tests.native.fake_device import (
    EVERY_OTHER_DTYPE,
    Device,
    FakeModel,
    emulated_machine,
    temporary_device,
    wait_until,
)
from tests.native.fake_protocol_server import fake_server

pytestmark = pytest.mark.also_on("aarch64")

FILE = Path(edgepack_client.__file__)
OLD_PYTHONS = ["python3.7", "python3.8", "python3.9", "python3.10"]
BINARY, SHARED = "binary_tensor_data", "system_shared_memory"
Connect = Callable[..., Client]


@pytest.fixture
def device(blank: Device) -> Device:
    return blank


@pytest.fixture
def served(device: Device) -> Iterator[Device]:
    with served_with_all_dtypes(device):
        yield device


@contextmanager
def served_with_all_dtypes(device: Device) -> Iterator[None]:
    device.install("m", {"1.0.0": FakeModel(all_dtypes=True)})
    with device.serving():
        yield


WAYS = [
    "real-agent",
    "real-agent-as-if-it-had-json-only",
    "real-agent-with-shared-memory",
    pytest.param("agent-on-aarch64", marks=pytest.mark.needs("qemu-aarch64-static")),
    "fake-with-binary-tensors",
    "fake-with-shared-memory",
]


@pytest.fixture(params=WAYS)
def connect(request: pytest.FixtureRequest) -> Iterator[Connect]:
    """``connect(**options)``: a client of a server of the fake model with every dtype, as ``m``."""
    clients: list[Client] = []
    shared = request.param.endswith("shared-memory")

    def make(**options: Any) -> Client:
        client = Client(address, **{"shared_memory": shared} | options)
        if request.param.endswith("json-only"):
            client._offers = lambda extension: False  # type: ignore[method-assign]
        clients.append(client)
        return client

    if request.param.startswith("real-agent"):
        address = str(request.getfixturevalue("served").socket)
        yield make
    elif request.param == "agent-on-aarch64":
        machine = emulated_machine("aarch64")
        with temporary_device(machine.agent(), machine) as device, served_with_all_dtypes(device):
            address = str(device.socket)
            yield make
    else:
        with fake_server(BINARY, *[SHARED] * shared) as server:
            address = server.address
            yield make
            server.regions.clear()
    for client in clients:
        client.close()


def inputs(**different: Any) -> dict[str, Any]:
    """One array for each input of the fake model with every dtype; some of them extremes."""
    arrays: dict[str, Any] = {"x": np.array([[0.1, 2], [-1.5, 1e20]], np.float32)}
    for dtype in EVERY_OTHER_DTYPE:
        kind = np.dtype(dtype)
        if dtype == "bool":
            values: list[Any] = [True, False, True]
        elif kind.kind == "f":
            values = [0.1, float(np.finfo(kind).max), float(np.finfo(kind).smallest_subnormal)]
        else:
            values = [np.iinfo(kind).min, np.iinfo(kind).max, 7]
        arrays["in_" + dtype] = np.array(values, kind)
    return arrays | {"in_scalar": np.array(2.5, np.float32)} | different


# ---- one contract --------------------------------------------------------------------------------


def test_the_server_tells_of_itself_and_its_models(connect: Connect) -> None:
    client = connect()
    assert client.live()
    assert client.ready()
    assert client.ready("m")
    assert "model_repository" in client.server()["extensions"]
    index = [{"name": "m", "version": "1.0.0", "state": "READY", "reason": ""}]
    assert client.models() == index
    assert client.metadata("m")["inputs"][0] == {"name": "x", "datatype": "FP32", "shape": [2, 2]}
    client.unload("m")
    client.load("m")
    assert client.ready("m")


def test_arrays_of_every_dtype_come_back_bit_for_bit(connect: Connect) -> None:
    sent = inputs()
    answer = connect().infer("m", sent)
    assert answer.pop("y").tobytes() == (sent["x"] + np.float32(1)).tobytes()
    assert answer.pop("calls").dtype == np.int64
    for name, array in answer.items():
        expected = sent["in_" + name[4:]]
        assert (array.dtype, array.shape) == (expected.dtype, expected.shape), name
        assert array.tobytes() == expected.tobytes(), name
        array[...] = 0  # an array of the caller's own


def test_numbers_bytes_and_tensors_are_inputs_and_tensors_are_outputs_without_numpy(
    connect: Connect,
) -> None:
    sent = inputs()
    plain = {
        name: (array.shape, array.dtype.name, array.tobytes())
        if name.endswith("64")
        else Tensor(array.dtype.name, array.shape, array.ravel().tolist())
        if name.endswith("32")
        else array.tolist()
        for name, array in sent.items()
    }
    answer = connect(arrays=False).infer("m", plain)
    assert answer["y"].shape == (2, 2)
    for name in answer.keys() - {"y", "calls"}:
        tensor, expected = answer[name], sent["in_" + name[4:]]
        assert isinstance(tensor, Tensor)
        assert (tensor.dtype, tensor.shape) == (expected.dtype.name, expected.shape)
        assert np.array(tensor.values, tensor.dtype).tobytes() == expected.tobytes(), name


def test_only_the_outputs_wanted_come_in_their_order(connect: Connect) -> None:
    client = connect()
    answer = client.infer("m", inputs(), outputs=["out_int8", "y"])
    assert list(answer) == ["out_int8", "y"]
    assert client.infer("m", inputs(), outputs=["y"]).keys() == {"y"}


def test_nan_goes_both_ways(connect: Connect) -> None:
    x = np.array([[1, np.nan], [3, 4]], np.float32)
    y = connect().infer("m", inputs(x=x), outputs=["y"])["y"]
    np.testing.assert_array_equal(y, x + np.float32(1))


def test_an_error_is_the_servers_line_with_its_status_and_the_client_goes_on(
    connect: Connect,
) -> None:
    client = connect()
    with pytest.raises(AgentError, match=r"^[^\n]*\bx\b[^\n]*$") as refused:
        client.infer("m", inputs(x=np.zeros((3, 3), np.float32)))
    assert refused.value.status == 400
    with pytest.raises(AgentError, match=r"^[^\n]+$") as missing:
        client.metadata("nobody")
    assert missing.value.status == 404
    assert client.infer("m", inputs(), outputs=["y"]).keys() == {"y"}


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("in_int8", [1, 2, 300], r"in_int8: not int8"),
        ("in_int8", [1, 2, "three"], r"in_int8: not int8"),
        ("in_int8", ((3,), "int8", b"12"), r"in_int8: int8 of shape \[3\] has not 2 bytes"),
        ("in_int8", ((3,), "int9", b"123"), r"in_int8: no dtype 'int9'; there are bool, "),
        ("x", [[1, 2], [3]], "x: rows of different lengths"),
        ("z", [1], "no input 'z'; it has x, in_bool"),
    ],
)
def test_what_cannot_be_sent_is_told_in_one_line(
    connect: Connect, name: str, value: Any, reason: str
) -> None:
    with pytest.raises(ValueError, match=rf"^[^\n]*{reason}[^\n]*$"):
        connect().infer("m", inputs(**{name: value}))


def test_threads_may_share_a_client(connect: Connect) -> None:
    client = connect()
    wrong: list[object] = []

    def ask(value: float) -> None:
        for _ in range(5):
            x = np.full((2, 2), value, np.float32)
            y = client.infer("m", inputs(x=x), outputs=["y"])["y"]
            if (y != x + 1).any():
                wrong.append(y)

    threads = [threading.Thread(target=ask, args=(float(value),)) for value in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# ---- connections ---------------------------------------------------------------------------------


def test_a_restarted_agent_is_found_again(device: Device) -> None:
    device.install("m", {"1.0.0": FakeModel()})
    client = Client(str(device.socket))
    for _ in range(2):
        with device.serving():
            assert client.infer("m", {"x": [[1, 2], [3, 4]]})["y"].tolist() == [[2, 3], [4, 5]]
    assert not client.live()
    assert not client.ready("m")
    with pytest.raises(AgentError, match=r"cannot connect to .* is the agent running\?") as error:
        client.models()
    assert error.value.status is None


@pytest.mark.parametrize("shared", [False, True])
def test_a_connection_that_a_fake_closed_unasked_is_made_anew(shared: bool) -> None:
    with fake_server(BINARY, SHARED) as server:
        with Client(server.address, shared_memory=shared) as client:
            server.close_idle = True
            for _ in range(3):
                client.infer("m", inputs())
                assert len(server.regions) == shared
        assert len(server.bodies) == 3
        assert server.regions == {}


class HalfServer:
    """Answers GET /v2, then closes each connection when a request has come, without an answer."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.requests: list[bytes] = []
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        answer = b'HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n{"extensions":[]}'
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection:
                while True:
                    request = connection.recv(65536)
                    self.requests.append(request.split(b" HTTP")[0])
                    if not request.startswith((b"GET /v2 ", b"GET /v2/health")):
                        break
                    connection.sendall(answer)


def test_infer_is_sent_twice_and_load_once_when_a_kept_connection_is_lost() -> None:
    server = HalfServer()
    address = f"http://127.0.0.1:{server.listener.getsockname()[1]}"
    with server.listener, Client(address) as client:
        assert client.live()
        with pytest.raises(AgentError) as lost:
            client.infer("m", {"x": ((1,), "float32", b"0000")})
        assert lost.value.status is None
        assert server.requests.count(b"POST /v2/models/m/infer") == 2
        assert client.live()
        with pytest.raises(AgentError):
            client.load("m")
        assert server.requests.count(b"POST /v2/repository/models/m/load") == 1


def test_a_timeout_is_an_error_and_nothing_is_sent_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = Client(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=0.05)
        with pytest.raises(AgentError, match=r"no answer from .*: timed out"):
            client.server()
        accepted, _ = silent.accept()
        with accepted:
            accepted.settimeout(30)
            received = b""
            while piece := accepted.recv(65536):
                received += piece
        assert received.count(b"GET /v2 ") == 1
        silent.settimeout(0)
        with pytest.raises(BlockingIOError):
            silent.accept()


def test_an_answer_larger_than_one_read_and_a_refusal_before_the_body_is_read(
    device: Device,
) -> None:
    device.install("m", {"1.0.0": FakeModel(elements=200_000, weight=0.0)})
    with device.serving(), Client(str(device.socket)) as client:
        x = np.random.default_rng(1).standard_normal((100_000, 2)).astype(np.float32)
        assert client.infer("m", {"x": x})["y"].tobytes() == x.tobytes()
        with pytest.raises(AgentError) as refused:
            client.infer("m", {"x": np.zeros((2_000_000, 2), np.float64)})
        assert refused.value.status in (400, 413)


# ---- tensors in shared memory --------------------------------------------------------------------


def test_with_a_fake_tensors_in_shared_memory_are_sent_as_offsets_alone() -> None:
    def ours() -> set[str]:
        return {name for name in os.listdir("/dev/shm") if name.startswith("edgepack-client-")}

    before = ours()
    with fake_server(BINARY, SHARED) as server:
        with Client(server.address, shared_memory=True) as client:
            first = client.infer("m", inputs())
            second = client.infer("m", inputs())
            assert first["y"].tobytes() == second["y"].tobytes()
            assert len(server.regions) == 1, "registered once"
        assert all("data" not in tensor for body in server.bodies for tensor in body["inputs"])
        assert server.regions == {}
    assert ours() == before


def test_infinity_is_refused_where_only_json_goes_and_sent_where_bytes_go(served: Device) -> None:
    x = np.full((2, 2), np.inf, np.float32)
    with fake_server(BINARY) as server, Client(server.address) as client:
        assert np.isinf(client.infer("m", inputs(x=x))["y"]).all()
    with Client(str(served.socket)) as client:
        assert np.isinf(client.infer("m", inputs(x=x))["y"]).all()
        client._offers = lambda extension: False  # type: ignore[method-assign]
        with pytest.raises(ValueError, match="x: infinity cannot be sent as JSON"):
            client.infer("m", inputs(x=x))


# ---- the file ------------------------------------------------------------------------------------


def test_the_file_has_the_syntax_of_python_3_7() -> None:
    assert ast.parse(FILE.read_text(), feature_version=(3, 7)).body


def runs(python: str) -> bool:
    """Whether this machine has it; the name may be there and lead nowhere."""
    try:
        return subprocess.run([python, "-V"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def test_the_one_file_alone_works_without_site_packages(device: Device, tmp_path: Path) -> None:
    copied = tmp_path / "edgepack_client.py"
    shutil.copy(FILE, copied)
    program = "import sys; sys.path.insert(0, sys.argv[1]); from edgepack_client import Client\n"
    program += "print(Client(sys.argv[2]).infer('m', {'x': [[1, 2], [3, 4]]})['y'])"
    device.install("m", {"1.0.0": FakeModel()})
    with device.serving():
        wait_until(device.is_up)
        for python in [sys.executable, *filter(runs, OLD_PYTHONS)]:
            command = [python, "-I", "-S", "-c", program, str(tmp_path), str(device.socket)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            expected = "Tensor(dtype='float32', shape=(2, 2), values=[2.0, 3.0, 4.0, 5.0])\n"
            assert done.stdout == expected, (python, done.stderr)

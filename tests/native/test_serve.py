from __future__ import annotations

import json
import os
import random
import signal
import socket
import struct
import subprocess
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.native.fake_device import (
    Device,
    FakeModel,
    UnixConnection,
    c_program,
    has_ended,
    request,
    run_in_progress,
    state_of,
    values,
    wait_until,
)

pytestmark = pytest.mark.also_on("aarch64")

INFER = "/v2/models/m/infer"
DATATYPES = {"bool": "BOOL", "float16": "FP16", "float32": "FP32", "float64": "FP64"}


CHUNKED = b"POST /v2/repository/index HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"


def datatype(dtype: str) -> str:
    return DATATYPES.get(dtype, dtype.upper())


@pytest.fixture
def device(blank: Device) -> Device:
    return blank


# ---- what is answered ----------------------------------------------------------------------------


def test_health_and_metadata_are_as_the_protocol_has_them(served: Device) -> None:
    assert served.ask("GET", "/v2") == (
        200,
        {
            "name": "edgepack",
            "version": "0.1.0",
            "extensions": ["binary_tensor_data", "model_repository", "system_shared_memory"],
        },
    )
    assert served.ask("GET", "/v2/health/live")[0] == 200
    assert served.ask("GET", "/v2/health/ready")[0] == 200
    x = {"name": "x", "datatype": "FP32", "shape": [2, 2]}
    expected = {
        "name": "m",
        "versions": ["1.0.0"],
        "platform": "edgepack",
        "inputs": [x],
        "outputs": [x | {"name": "y"}, {"name": "calls", "datatype": "INT64", "shape": [2]}],
    }
    assert served.ask("GET", "/v2/models/m") == (200, expected)
    assert served.ask("GET", "/v2/models/m/versions/1.0.0") == (200, expected)
    assert served.ask("GET", "/v2/models/m/ready")[0] == 200
    assert served.ask("GET", "/v2/models/m/versions/1.0.0/ready")[0] == 200
    index = [{"name": "m", "version": "1.0.0", "state": "READY", "reason": ""}]
    assert served.ask("POST", "/v2/repository/index", {}) == (200, index)


@pytest.mark.also_on("armv7", "riscv64")
def test_an_inference_is_answered_with_every_output(served: Device) -> None:
    x = np.array([0.1, 2, -1.5, 1e20], np.float32)
    status, answer = served.ask("POST", INFER, request(x.tolist(), id="ü1"))
    assert status == 200
    y, calls = answer.pop("outputs")
    assert answer == {"model_name": "m", "model_version": "1.0.0", "id": "ü1"}
    assert np.array(y.pop("data"), np.float32).tolist() == (x + np.float32(1)).tolist()
    assert y == {"name": "y", "datatype": "FP32", "shape": [2, 2]}
    assert calls == {"name": "calls", "datatype": "INT64", "shape": [2], "data": [1, 1]}
    chosen = request([1, 1, 1, 1], outputs=[{"name": "calls"}])
    status, answer = served.ask("POST", "/v2/models/m/versions/1.0.0/infer", chosen)
    assert (status, values(answer)) == (200, {"calls": [2, 1]})
    assert "id" not in answer


@pytest.mark.also_on("armv7", "riscv64")
def test_tensors_of_every_dtype_come_back_bit_for_bit(device: Device) -> None:
    model = FakeModel(all_dtypes=True)
    device.install("m", {"1.0.0": model})
    generator = np.random.default_rng(1)
    with device.serving():
        connection = device.connect()
        for nested in (False, True):
            inputs, sent = [], {}
            for spec in model.inputs:
                count = spec.nbytes // np.dtype(spec.dtype).itemsize
                array = extremes(spec.dtype, generator, count).reshape(spec.shape)
                sent[spec.name] = array
                inputs.append(
                    {
                        "name": spec.name,
                        "shape": list(spec.shape),
                        "datatype": datatype(spec.dtype),
                        "data": array.tolist() if nested and spec.shape else array.ravel().tolist(),
                    }
                )
            random.Random(nested).shuffle(inputs)
            status, answer = connection.ask("POST", INFER, {"inputs": inputs})
            assert status == 200, answer
            for spec in model.outputs[2:]:
                (output,) = (o for o in answer["outputs"] if o["name"] == spec.name)
                assert output["datatype"] == datatype(spec.dtype)
                back = np.array(output["data"], spec.dtype).reshape(output["shape"])
                expected = sent[spec.name.replace("out_", "in_")]
                assert back.tobytes() == expected.tobytes(), spec.name
        connection.close()


def extremes(dtype: str, generator: np.random.Generator, count: int) -> np.ndarray:
    """``count`` values among which are the least and the greatest."""
    if dtype == "bool":
        return np.array([True, False, True][:count])
    kind = np.dtype(dtype)
    if kind.kind == "f":
        info = np.finfo(kind)
        return (
            np.array([generator.standard_normal(), info.max, info.smallest_subnormal], kind)[:count]
            if (count <= 3)
            else generator.standard_normal(count).astype(kind)
        )
    limits = np.iinfo(kind)
    return np.array([limits.min, limits.max, generator.integers(0, 100)], kind)[:count]


def test_not_a_number_and_infinity_are_null_in_both_ways(served: Device) -> None:
    status, answer = served.ask("POST", INFER, request([-1006, 0, 0, 1]))
    assert status == 200
    assert values(answer)["y"] == [None, None, None, 2.0]
    nan_in: Any = request([1, 1, 1, 1])
    nan_in["inputs"][0]["data"] = [1, None, 3, 4]
    assert values(served.ask("POST", INFER, nan_in)[1])["y"] == [2.0, None, 4.0, 5.0]


def test_sorted_keys_and_chunked_bodies_are_understood(served: Device) -> None:
    text = json.dumps(request([1, 2, 3, 4]), sort_keys=True).encode()
    assert text.index(b'"data"') < text.index(b'"name"')
    assert values(served.ask("POST", INFER, text)[1])["y"] == [2, 3, 4, 5]
    connection = served.connect()
    for size in (1, 7, 4096):
        pieces = (text[i : i + size] for i in range(0, len(text), size))
        connection.request("POST", INFER, body=pieces, encode_chunked=True)
        answer = connection.getresponse()
        assert values(json.loads(answer.read()))["y"] == [2, 3, 4, 5]
    connection.close()


def test_a_large_model_takes_and_gives_its_tensors(device: Device) -> None:
    count = 300_000
    device.install("m", {"1.0.0": FakeModel(elements=count, weight=0.0)})
    x = np.random.default_rng(2).standard_normal(count).astype(np.float32)
    with device.serving():
        # curl asks for this before it sends a megabyte.
        connection = device.connect()
        status, answer = connection.ask("POST", INFER, request(x.tolist()), Expect="100-continue")
        assert status == 200
        assert np.array(values(answer)["y"], np.float32).tobytes() == x.tobytes()
        status, answer = connection.ask(
            "POST", INFER, request(x.tolist(), outputs=[{"name": "calls"}])
        )
        assert values(answer) == {"calls": [2, 1]}
        connection.close()


# ---- what is refused -----------------------------------------------------------------------------


def test_requests_that_do_not_fit_the_model_say_what_was_expected(served: Device) -> None:
    def edited(**changes: Any) -> dict[str, Any]:
        body = request([1, 2, 3, 4])
        body["inputs"][0] |= changes
        return body

    good = request([1, 2, 3, 4])
    connection = served.connect()
    for body, reason in (
        (edited(name="q"), 'the model has no input "q"; the first is "x"'),
        (edited(shape=[4]), 'input "x" has shape [4], expected [2,2]'),
        (edited(datatype="INT8"), 'input "x" has datatype INT8, expected FP32'),
        (edited(data=[1, 2, 3]), 'input "x": data has fewer than the 4 elements of its shape'),
        (edited(data=[1, 2, 3, 1e39]), 'input "x": element 3 is no FP32'),
        (
            edited(data=[[1, 2, 3, 4]]),
            'input "x": data is neither flat nor nested like its shape [2,2]',
        ),
        ({"inputs": []}, 'input "x" (FP32 [2,2]) is missing'),
        ({"inputs": good["inputs"] * 2}, 'input "x" is there twice'),
        (good | {"outputs": [{"name": "z"}]}, 'the model has no output "z"; the first is "y"'),
        (b"", "the request is not well-formed JSON of the expected kind"),
        (b"not json", "the request is not well-formed JSON of the expected kind"),
        (
            json.dumps(good).encode()[:-1],
            "the request is not well-formed JSON of the expected kind",
        ),
        (
            json.dumps(good).encode() + b"}",
            "the request is not well-formed JSON of the expected kind",
        ),
    ):
        assert connection.ask("POST", INFER, body) == (400, {"error": reason})
    assert connection.ask("POST", INFER, good)[0] == 200  # on the same connection
    connection.close()


def test_unknown_paths_models_and_methods_are_told_apart(served: Device) -> None:
    for method, path, status in (
        ("GET", "/", 404),
        ("GET", "/v2/models/other", 404),
        ("GET", "/v2/models/m/versions/2.0.0", 404),
        ("POST", "/v2/models/m/versions/2.0.0/infer", 404),
        ("POST", "/v2/models/../../etc/passwd/infer", 404),
        ("GET", INFER, 405),
        ("POST", "/v2", 405),
        ("DELETE", "/v2/models/m", 405),
        ("POST", "/v2/repository/models/other/load", 404),
        ("POST", "/v2/repository/models/UPPER/load", 404),
    ):
        found, answer = served.ask(method, path)
        assert (found, list(answer)) == (status, ["error"]), path
    assert served.ask("HEAD", "/v2") == (200, None)


def test_a_body_larger_than_the_model_can_need_is_refused_unread(served: Device) -> None:
    head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\n".encode()
    for length in (200_000, 10**12, 10**17):
        answer = served.exchange(head + f"Content-Length: {length}\r\n\r\n".encode())
        assert answer.startswith(b"HTTP/1.1 413 "), answer
        expecting = head + f"Expect: 100-continue\r\nContent-Length: {length}\r\n\r\n".encode()
        assert b"100 Continue" not in served.exchange(expecting)
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    answer = served.exchange(head + b"Transfer-Encoding: chunked\r\n\r\n", chunk, chunk)
    assert answer.startswith(b"HTTP/1.1 413 ")
    # One who reads only after sending everything still gets the answer.
    status, answer_json = served.ask("POST", INFER, b" " * 200_000)
    assert status == 413
    assert "no more than" in answer_json["error"]


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /v2 HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"GET /v2 HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 400),
        (b"GET /v2 HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n", 400),
        (b"GET /v2 HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET /v2 HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"POST /v2/repository/index HTTP/1.1\r\nContent-Encoding: gzip\r\n\r\n", 415),
        (b"GET /v2 HTTP/1.1\r\nExpect: tea\r\n\r\n", 417),
        (b"GET /v2 HTTP/2.0\r\n\r\n", 505),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET /v2 HTTP/1.1\r\n" + b"X: y\r\n" * 3000 + b"\r\n", 431),
        (b"GET /" + b"a" * 7000 + b" HTTP/1.1\r\n\r\n", 404),
        (CHUNKED + b"ffffffffffffffff\r\n", 400),
        (CHUNKED + b"ffffffffffffff\r\n", 413),
        (b"POST /v2/repository/index HTTP/1.1\r\nContent-Length: 10\r\n\r\nshort", 400),
    ],
)  # fmt: skip
def test_malformed_http_is_answered_and_the_connection_closed(
    served: Device, head: bytes, status: int
) -> None:
    answer = served.exchange(head)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode()), answer
    assert answer.count(b"Content-Length:") == 1
    assert served.ask("GET", "/v2")[0] == 200


def test_a_request_cut_at_any_byte_harms_nobody(served: Device) -> None:
    body = json.dumps(request([1, 2, 3, 4])).encode()
    whole = f"POST {INFER} HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    for length in range(len(whole)):
        answer = served.exchange(whole[:length])
        assert answer == b"" or answer.startswith(b"HTTP/1.1 400 "), length
    assert b"200 OK" in served.exchange(whole)
    assert b"200 OK" in served.exchange(*(whole[i : i + 1] for i in range(len(whole))))


def test_requests_in_one_packet_are_answered_in_order(served: Device) -> None:
    one = b"GET /v2/health/live HTTP/1.1\r\n\r\n"
    two = b"POST /v2/repository/index HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}"
    last = b"GET /nowhere HTTP/1.0\r\n\r\n"
    answers = served.exchange(one + two + last)
    assert [answers.find(text) >= 0 for text in (b"live", b"READY", b"404")] == [True] * 3
    assert answers.index(b"live") < answers.index(b"READY") < answers.index(b"404")


# ---- many clients --------------------------------------------------------------------------------


def test_concurrent_clients_get_their_own_answers(served: Device) -> None:
    failures: list[Any] = []

    def work(client: int) -> None:
        connection = served.connect()
        for turn in range(50):
            x = [client, turn, client * turn, -client]
            status, answer = connection.ask("POST", INFER, request(x, id=f"{client}.{turn}"))
            if (
                status != 200
                or values(answer)["y"] != [v + 1 for v in x]
                or answer["id"] != f"{client}.{turn}"
            ):
                failures.append(answer)
        connection.close()

    threads = [threading.Thread(target=work, args=(client,)) for client in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert values(served.ask("POST", INFER, request([0, 0, 0, 0]))[1])["calls"] == [801, 1]


def test_connections_above_the_bound_are_turned_away_and_others_stay(served: Device) -> None:
    held = [served.connect() for _ in range(32)]
    for connection in held:
        assert connection.ask("GET", "/v2/health/live")[0] == 200
    status, answer = served.ask("GET", "/v2/health/live")
    assert (status, answer) == (503, {"error": "too many connections"})
    assert held[0].ask("POST", INFER, request([1, 1, 1, 1]))[0] == 200
    held.pop().close()
    wait_until(lambda: served.ask("GET", "/v2/health/live")[0] == 200)
    for connection in held:
        connection.close()


def test_a_client_that_sends_slowly_keeps_the_model_from_nobody(served: Device) -> None:
    body = json.dumps(request([1, 2, 3, 4])).encode()
    with served.plain_socket() as slow:
        head = f"POST {INFER} HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n"
        slow.sendall(head.encode() + body[:-5])
        for _ in range(10):
            assert served.ask("POST", INFER, request([1, 2, 3, 4]))[0] == 200
        slow.sendall(body[-5:])
        assert slow.recv(4096).startswith(b"HTTP/1.1 200 ")


@pytest.mark.only_here("what qemu translates is in its own memory, which grows")
def test_memory_does_not_grow_with_requests(served: Device) -> None:
    def resident() -> int:
        assert served.server is not None
        return int(Path(f"/proc/{served.server.pid}/statm").read_text().split()[1]) * 4096

    connection = served.connect()
    for turn in range(2000):
        if turn == 200:
            before = resident()
        body = request([1, 2, 3, 4]) if turn % 2 else b'{"inputs":[' + b"[" * 100
        connection.ask("POST", INFER, body)
        if turn % 10 == 0:
            served.ask("GET", "/v2")
    connection.close()
    assert resident() < before + (1 << 20)


# ---- workers that die ----------------------------------------------------------------------------


def test_a_worker_killed_between_requests_is_not_noticed(served: Device) -> None:
    connection = served.connect()
    assert values(connection.ask("POST", INFER, request([1, 1, 1, 1]))[1])["calls"] == [1, 1]
    for _ in range(5):
        (worker,) = served.workers()
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda pid=worker: has_ended(pid))  # type: ignore[misc]
        status, answer = connection.ask("POST", INFER, request([1, 1, 1, 1]))
        assert status == 200, answer
        assert values(answer)["calls"] == [1, 1]  # a new process counts from one
    assert len(served.workers()) == 1
    connection.close()


@pytest.mark.also_on("armv7", "riscv64")
def test_a_worker_that_dies_in_a_request_is_told_and_started_again(served: Device) -> None:
    status, answer = served.ask("POST", INFER, request([-1002, 0, 0, 0]))
    assert status == 500
    assert "signal 9" in answer["error"]
    assert served.ask("POST", INFER, request([1, 1, 1, 1]))[0] == 200
    status, answer = served.ask("POST", INFER, request([-1005, 0, 0, 0]))
    assert (status, "illegal instruction" in answer["error"]) == (500, True)
    assert served.ask("POST", INFER, request([1, 1, 1, 1]))[0] == 200


def test_a_worker_killed_while_it_runs_answers_that_request_only(served: Device) -> None:
    with run_in_progress(served, -1003) as answers:
        os.kill(served.workers()[0], signal.SIGKILL)
    status, answer = answers[0]
    assert (status, "signal 9" in answer["error"]) == (500, True)
    assert served.ask("POST", INFER, request([1, 1, 1, 1]))[0] == 200


def test_a_worker_that_dies_again_and_again_is_given_a_pause(served: Device) -> None:
    connection = served.connect()
    statuses = [connection.ask("POST", INFER, request([-1002, 0, 0, 0]))[0] for _ in range(20)]
    assert statuses[:2] == [500, 500]
    assert 503 in statuses
    assert statuses.count(500) < 8
    wait_until(lambda: connection.ask("POST", INFER, request([1, 1, 1, 1]))[0] == 200)
    connection.close()


def test_a_kernel_that_fails_leaves_the_worker_running(served: Device) -> None:
    workers = served.workers()
    status, answer = served.ask("POST", INFER, request([-1001, 0, 0, 0]))
    assert (status, "kernel" in answer["error"]) == (500, True)
    assert values(served.ask("POST", INFER, request([1, 1, 1, 1]))[1])["calls"] == [2, 1]
    assert served.workers() == workers


# ---- what runs -----------------------------------------------------------------------------------


def test_a_switch_under_traffic_loses_and_mixes_no_answer(served: Device) -> None:
    stop = threading.Event()
    answers: list[tuple[int, Any]] = []

    def work() -> None:
        connection = served.connect()
        while not stop.is_set():
            answers.append(connection.ask("POST", INFER, request([1, 2, 3, 4])))
        connection.close()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    versions = {"1.0.0": FakeModel()}
    for number in range(2, 12):
        name = f"1.{number}.0"
        versions[name] = FakeModel(tag=number, weight=float(number))
        served.install("m", versions)
        assert served.ask("POST", "/v2/repository/models/m/load") == (
            200,
            {"name": "m", "version": name},
        )
        # Whoever asks after the switch is answered by the new one.
        assert served.ask("POST", INFER, request([1, 2, 3, 4]))[1]["model_version"] == name
    stop.set()
    for thread in threads:
        thread.join()
    assert len(answers) > 100
    for status, answer in answers:
        assert status == 200, answer
        model = versions[answer["model_version"]]
        assert values(answer)["y"] == [v + model.weight for v in (1, 2, 3, 4)]
        assert values(answer)["calls"][1] == model.tag
    wait_until(lambda: len(served.workers()) == 1)


def test_a_run_on_the_old_version_ends_on_it(served: Device) -> None:
    served.install("m", {"1.0.0": FakeModel(), "2.0.0": FakeModel(tag=2)})
    with run_in_progress(served, -1004) as answers:
        assert served.ask("POST", "/v2/repository/models/m/load")[0] == 200
        status, answer = served.ask("POST", INFER, request([1, 1, 1, 1]))
        assert (status, answer["model_version"]) == (200, "2.0.0")
    assert (answers[0][0], answers[0][1]["model_version"]) == (200, "1.0.0")
    wait_until(lambda: len(served.workers()) == 1)


def test_a_version_that_cannot_be_loaded_leaves_the_old_one_serving(served: Device) -> None:
    versions = {"1.0.0": FakeModel(), "2.0.0": FakeModel(tag=2)}
    for kind in ("worker", "weights", "metadata"):
        served.install("m", versions)
        blob = served.current("m", kind)
        whole = blob.read_bytes()
        for damage in (flip(whole), whole[:-1], None):
            blob.chmod(0o755)
            blob.unlink() if damage is None else blob.write_bytes(damage)
            status, answer = served.ask("POST", "/v2/repository/models/m/load")
            assert status == 500
            assert "blob" in answer["error"]
            assert served.ask("POST", INFER, request([1, 1, 1, 1]))[1]["model_version"] == "1.0.0"
        blob.write_bytes(whole)
        blob.chmod(0o555)
    assert served.ask("POST", "/v2/repository/models/m/load")[1]["version"] == "2.0.0"


def flip(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.only_here("qemu takes everything for a program of this machine")
def test_what_is_no_worker_is_refused_with_the_reason(served: Device) -> None:
    class Wrong(FakeModel):
        program = b""

        def worker(self, target: Any = None) -> bytes:
            return self.program

    for program, reason in (
        (b"#!/bin/false\n", "cannot execute the worker: NOENT (a script?"),
        (b"\x7fELF\x02\x01\x01" + bytes(100), "cannot execute"),
        (Path("/bin/true").read_bytes(), "cannot execute"),  # wants a loader, which is another file
        (c_program("int main(void) { return 3; }"), "exit code 3"),
        (
            c_program(
                'int puts(const char *); int main(void) { return puts("hello, hello, hello"); }'
            ),
            "protocol",
        ),
        (struct.pack("<IiQ", 0x31575045, 0, 0), "cannot execute"),
    ):
        wrong = type("Program", (Wrong,), {"program": program})()
        served.install("m", {"1.0.0": FakeModel(), "2.0.0": wrong})
        status, answer = served.ask("POST", "/v2/repository/models/m/load")
        assert (status, reason in answer["error"]) == (500, True), answer
    assert served.ask("POST", INFER, request([1, 1, 1, 1]))[0] == 200
    assert len(served.workers()) == 1


def test_a_new_model_is_served_when_it_is_loaded(served: Device) -> None:
    assert served.ask("GET", "/v2/models/n")[0] == 404
    served.install("n", {"0.1.0": FakeModel(tag=9)})
    assert served.ask("POST", "/v2/repository/models/n/load")[0] == 200
    assert values(served.ask("POST", "/v2/models/n/infer", request([1, 1, 1, 1]))[1])["calls"] == [
        1,
        9,
    ]
    assert values(served.ask("POST", INFER, request([1, 1, 1, 1]))[1])["calls"] == [1, 1]


def test_where_the_current_version_does_not_start_the_previous_one_is_served(
    device: Device,
) -> None:
    device.install("m", {"1.0.0": FakeModel(), "2.0.0": FakeModel(tag=2)})
    device.install("broken", {"1.0.0": FakeModel(tag=3)})
    for name, kind in (("m", "worker"), ("broken", "worker")):
        blob = device.current(name, kind)
        content = blob.read_bytes()
        blob.chmod(0o755)
        blob.write_bytes(flip(content))
    with device.serving():
        index = {entry["name"]: entry for entry in device.ask("POST", "/v2/repository/index")[1]}
        assert index["m"]["state"] == "READY"
        assert index["m"]["version"] == "1.0.0"
        assert "version 2.0.0: the contents of blob" in index["m"]["reason"]
        assert index["broken"]["state"] == "UNAVAILABLE"
        assert device.ask("GET", "/v2/models/m/ready")[0] == 200
        assert values(device.ask("POST", INFER, request([1, 1, 1, 1]))[1])["calls"] == [1, 1]
        assert device.ask("GET", "/v2/health/ready")[0] == 503
        assert device.ask("GET", "/v2/health/live")[0] == 200
        status, answer = device.ask("POST", "/v2/models/broken/infer", request([1, 1, 1, 1]))
        assert (status, "is not ready" in answer["error"]) == (503, True)
    assert "the previous one, 1.0.0, is served" in (device.root / "stderr").read_text()


# ---- the server itself ---------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_on_a_signal_when_the_requests_in_progress_are_answered(
    served: Device, number: signal.Signals
) -> None:
    assert served.server is not None
    idle = served.connect()
    assert idle.ask("GET", "/v2")[0] == 200
    workers = served.workers()
    with run_in_progress(served, -1004) as answers:
        served.server.send_signal(number)
    assert answers[0][0] == 200
    assert served.server.wait(20) == 0
    assert not served.socket.exists()
    assert all(state_of(worker) == "X" for worker in workers)
    idle.close()


def test_a_socket_that_nobody_listens_on_is_replaced_and_one_in_use_is_not(served: Device) -> None:
    second = subprocess.run(served.command("serve"), capture_output=True, text=True, check=False)
    assert second.returncode == 10
    assert "another server serves this store" in second.stderr
    elsewhere = [
        *served.command()[:-1],
        str(served.root / "b"),
        "serve",
        "--socket",
        str(served.socket),
    ]
    third = subprocess.run(elsewhere, capture_output=True, text=True, check=False)
    assert third.returncode == 10
    assert "another server is at" in third.stderr
    assert served.ask("GET", "/v2")[0] == 200
    assert served.server is not None
    served.server.kill()
    served.server.wait()
    assert served.socket.exists()
    with served.serving():
        assert served.ask("POST", INFER, request([1, 1, 1, 1]))[0] == 200


def test_workers_end_with_a_server_that_is_killed(served: Device) -> None:
    workers = served.workers()
    assert served.server is not None
    served.server.kill()
    served.server.wait()
    wait_until(lambda: all(state_of(worker) in "XZ" for worker in workers))


def test_only_owner_and_group_may_connect(served: Device) -> None:
    assert served.socket.stat().st_mode & 0o777 == 0o660


def test_workers_hold_no_file_of_the_agent_and_no_environment(served: Device) -> None:
    for _ in range(3):
        served.ask("POST", "/v2/repository/models/m/load")
    connections = [served.connect() for _ in range(3)]
    for connection in connections:
        connection.ask("GET", "/v2")
    served.install("n", {"1.0.0": FakeModel()})
    served.ask("POST", "/v2/repository/models/n/load")
    for worker in served.workers():
        files = Path(f"/proc/{worker}/fd")
        own = {f"/proc/{worker}/status", f"/proc/{worker}/smaps_rollup"}  # for its peak memory
        others = {file.name for file in files.iterdir() if os.readlink(file) not in own}
        assert others == {"0", "1", "2"}
        assert Path(f"/proc/{worker}/environ").read_bytes() == b""
    for connection in connections:
        connection.close()


def test_a_detached_server_answers_when_the_command_returns(device: Device) -> None:
    device.install("m", {"1.0.0": FakeModel()})
    done = subprocess.run(
        device.command("serve", "--detach"), capture_output=True, check=False, timeout=30
    )
    assert done.returncode == 0, done.stderr
    connection: UnixConnection = device.connect()
    assert connection.ask("POST", INFER, request([1, 1, 1, 1]))[0] == 200
    again = subprocess.run(
        device.command("serve", "--detach"), capture_output=True, text=True, check=False
    )
    assert again.returncode == 10
    assert "another server" in again.stderr
    credentials = connection.sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    server, _, _ = struct.unpack("3i", credentials)
    assert os.getsid(server) != os.getsid(0)
    os.kill(server, signal.SIGTERM)
    wait_until(lambda: state_of(server) in "XZ")
    assert not device.socket.exists()
    assert "serving 1 models" in (device.root / "run" / "agent.log").read_text()
    connection.close()

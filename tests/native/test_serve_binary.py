"""The binary tensor data extension: tensors behind the JSON of requests and answers."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from tests.native.fake_device import Device, FakeModel, UnixConnection, request, values

pytestmark = pytest.mark.also_on("aarch64")

INFER = "/v2/models/m/infer"
LENGTH = "Inference-Header-Content-Length"
ALL_BINARY = {"binary_data_output": True}


@pytest.fixture
def device(blank: Device) -> Device:
    return blank


def binary_input(name: str, datatype: str, array: np.ndarray, **more: Any) -> dict[str, Any]:
    parameters = {"binary_data_size": array.nbytes}
    shape = list(array.shape)
    return {"name": name, "shape": shape, "datatype": datatype, "parameters": parameters} | more


def post(
    connection: UnixConnection,
    body: dict[str, Any] | bytes,
    tensors: bytes,
    *,
    chunked: bool = False,
) -> tuple[int, dict[str, Any], bytes]:
    """Status, JSON and what follows it."""
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    whole = text + tensors
    content = (whole[i : i + 7] for i in range(0, len(whole), 7)) if chunked else whole
    headers = {LENGTH: str(len(text))}
    connection.request("POST", INFER, body=content, headers=headers, encode_chunked=chunked)
    answer = connection.getresponse()
    received = answer.read()
    length = int(answer.headers.get(LENGTH, len(received)))
    expected_type = "octet-stream" if LENGTH in answer.headers else "json"
    assert answer.headers["Content-Type"] == f"application/{expected_type}"
    return answer.status, json.loads(received[:length]), received[length:]


@pytest.mark.also_on("armv7", "riscv64")
def test_binary_inputs_and_outputs_pass_unchanged(served: Device) -> None:
    x = np.array([[0.1, 2], [-1.5, 1e20]], np.float32)
    body = {"inputs": [binary_input("x", "FP32", x)], "parameters": ALL_BINARY, "id": "7"}
    connection = served.connect()
    for calls, chunked in ((1, False), (2, True)):
        status, answer, tensors = post(connection, body, x.tobytes(), chunked=chunked)
        y, counted = answer.pop("outputs")
        assert (status, answer) == (200, {"model_name": "m", "model_version": "1.0.0", "id": "7"})
        parameters = {"binary_data_size": 16}
        assert y == {"name": "y", "datatype": "FP32", "shape": [2, 2], "parameters": parameters}
        assert counted["parameters"] == parameters
        assert tensors == (x + np.float32(1)).tobytes() + np.array([calls, 1]).tobytes()
    connection.close()


def test_binary_and_json_mix_in_both_directions(served: Device) -> None:
    x = np.array([[1, 2], [3, 4]], np.float32)
    connection = served.connect()
    chosen = [{"name": "calls", "parameters": {"binary_data": True}}, {"name": "y"}]
    body = {"inputs": [binary_input("x", "FP32", x)], "outputs": chosen}
    status, answer, tensors = post(connection, body, x.tobytes())
    assert (status, tensors) == (200, np.array([1, 1]).tobytes())
    assert answer["outputs"][1]["data"] == [2, 3, 4, 5]
    # All outputs as JSON, although the input was binary; and the other way round, without the header.
    status, answer, tensors = post(connection, {"inputs": body["inputs"]}, x.tobytes())
    assert (status, values(answer), tensors) == (200, {"y": [2, 3, 4, 5], "calls": [2, 1]}, b"")
    outputs = [{"name": "y", "parameters": {"binary_data": False}}, {"name": "calls"}]
    text = json.dumps(request([1, 2, 3, 4], outputs=outputs, parameters=ALL_BINARY))
    connection.request("POST", INFER, body=text)
    received = connection.getresponse()
    assert received.read().endswith(np.array([3, 1]).tobytes())
    # Nothing but the data of the only input.
    status, answer, tensors = post(connection, b"", x.tobytes())
    assert (status, len(answer["outputs"]), len(tensors)) == (200, 2, 32)
    connection.close()


def test_tensors_of_every_dtype_are_their_bytes(device: Device) -> None:
    model = FakeModel(all_dtypes=True)
    device.install("m", {"1.0.0": model})
    names = {"bool": "BOOL", "float16": "FP16", "float32": "FP32", "float64": "FP64"}
    generator = np.random.default_rng(3)
    inputs, sent = [], {}
    for spec in model.inputs:
        raw = generator.integers(0, 2 if spec.dtype == "bool" else 256, spec.nbytes, np.uint8)
        sent[spec.name] = np.frombuffer(raw.tobytes(), spec.dtype).reshape(spec.shape)
        datatype = names.get(spec.dtype, spec.dtype.upper())
        inputs.append(binary_input(spec.name, datatype, sent[spec.name]))
    with device.serving():
        connection = device.connect()
        for order in (1, -1):
            ordered = inputs[::order]
            tensors = b"".join(sent[str(tensor["name"])].tobytes() for tensor in ordered)
            body = {"inputs": ordered, "parameters": ALL_BINARY}
            status, answer, received = post(connection, body, tensors)
            assert status == 200, answer
            for output in answer["outputs"]:
                size = output["parameters"]["binary_data_size"]
                piece, received = received[:size], received[size:]
                if output["name"].startswith("out_"):
                    assert piece == sent[output["name"].replace("out_", "in_")].tobytes()
            assert received == b""
        # A byte that is no truth value is refused before a kernel sees it.
        flags = tensors.replace(sent["in_bool"].tobytes(), b"\x00\x02\x01", 1)
        status, answer, _ = post(connection, body, flags)
        assert (status, answer["error"]) == (400, 'input "in_bool": element 1 is no BOOL')
        connection.close()


def test_large_tensors_pass_whole_between_others(device: Device) -> None:
    count = 300_000
    device.install("m", {"1.0.0": FakeModel(elements=count, weight=0.0)})
    x = np.random.default_rng(2).standard_normal((count // 2, 2)).astype(np.float32)
    body = {"inputs": [binary_input("x", "FP32", x)], "parameters": ALL_BINARY}
    with device.serving():
        connection = device.connect()
        for calls in (1, 2, 3):
            status, _, tensors = post(connection, body, x.tobytes())
            assert status == 200
            assert tensors == x.tobytes() + np.array([calls, 1]).tobytes()
            assert connection.ask("GET", "/v2")[0] == 200
        connection.close()


def test_sizes_that_do_not_fit_are_refused_and_the_connection_stays(served: Device) -> None:
    x = np.zeros((2, 2), np.float32)
    good = {"inputs": [binary_input("x", "FP32", x)]}
    data = x.tobytes()
    connection = served.connect()
    for parameters, tensors, reason in (
        ({"binary_data_size": 12}, data, 'input "x": binary_data_size is 12, expected 16'),
        ({"binary_data_size": 2**62}, data, "binary_data_size is not a number of bytes"),
        ({"binary_data_size": "16"}, data, "binary_data_size is not a number of bytes"),
        ({"binary_data_size": 16}, data[:-1], "15 bytes follow the JSON, expected 16"),
        ({"binary_data_size": 16}, data + b"x", "17 bytes follow the JSON, expected 16"),
        ({"binary_data_size": 16}, b"", "0 bytes follow the JSON, expected 16"),
    ):
        body = {"inputs": [good["inputs"][0] | {"parameters": parameters}]}
        status, answer, _ = post(connection, body, tensors)
        assert (status, answer) == (400, {"error": reason})
    for tensors, word in ((data[:-1], "fewer"), (data + b"x", "more")):
        status, answer, _ = post(connection, good, tensors, chunked=True)
        expected = f"{word} bytes follow the JSON than the expected 16"
        assert (status, answer["error"]) == (400, expected)
    status, answer = connection.ask("POST", INFER, json.dumps(good).encode() + data)
    assert (status, answer["error"].endswith(f"needs the header {LENGTH}")) == (400, True)
    status, answer = connection.ask("POST", INFER, good, **{LENGTH: "1000"})
    assert (status, answer["error"].startswith(f"{LENGTH} is 1000, and the body has")) == (
        400,
        True,
    )
    assert post(connection, good, data)[0] == 200
    connection.close()
    # A length that is none ends the connection, as any head that is malformed does.
    assert served.ask("POST", INFER, good, **{LENGTH: "-1"})[0] == 400


def test_a_binary_request_cut_at_any_byte_harms_nobody(served: Device) -> None:
    x = np.ones((2, 2), np.float32)
    text = json.dumps({"inputs": [binary_input("x", "FP32", x)]}).encode()
    body = text + x.tobytes()
    head = f"POST {INFER} HTTP/1.1\r\n{LENGTH}: {len(text)}\r\nContent-Length: {len(body)}\r\n\r\n"
    whole = head.encode() + body
    for length in range(len(whole) - len(body) - 4, len(whole)):
        answer = served.exchange(whole[:length])
        assert answer == b"" or answer.startswith(b"HTTP/1.1 400 "), length
    assert b"200 OK" in served.exchange(*(whole[i : i + 1] for i in range(len(whole))))

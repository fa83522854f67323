"""The stock client of Triton Inference Server, as PyPI has it, against the agent over TCP."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from tests.native.fake_device import Device, FakeModel

pytestmark = pytest.mark.also_on("aarch64")

X = np.array([[0.5, 1], [2, -3]], np.float32)


@pytest.fixture
def served(idle: Device) -> Iterator[Device]:
    idle.install("every", {"0.2.0": FakeModel(all_dtypes=True)})
    with idle.serving("--tcp", "0"):
        yield idle


@pytest.fixture
def client(served: Device) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(served.tcp_address, network_timeout=30.0) as client:
        yield client


def x_input(*, binary: bool) -> triton.InferInput:
    tensor = triton.InferInput("x", [2, 2], "FP32")
    tensor.set_data_from_numpy(X, binary_data=binary)
    return tensor


def test_server_and_models_are_described(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.get_server_metadata()["name"] == "edgepack"
    assert client.is_model_ready("m")
    assert client.is_model_ready("m", "1.0.0")
    assert not client.is_model_ready("m", "2.0.0")
    assert client.get_model_metadata("m", "1.0.0")["inputs"] == [
        {"name": "x", "datatype": "FP32", "shape": [2, 2]}
    ]
    index = {entry["name"]: entry["state"] for entry in client.get_model_repository_index()}
    assert index == {"m": "READY", "every": "READY"}


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False, None])
def test_tensors_pass_as_json_and_in_binary(
    client: triton.InferenceServerClient, binary_in: bool, binary_out: bool | None
) -> None:
    outputs = None
    if binary_out is not None:
        outputs = [triton.InferRequestedOutput(n, binary_data=binary_out) for n in ("calls", "y")]
    for calls in (1, 2):
        inputs = [x_input(binary=binary_in)]
        result = client.infer("m", inputs, outputs=outputs, request_id="r1", model_version="1.0.0")
        assert result.get_response()["id"] == "r1"
        np.testing.assert_array_equal(result.as_numpy("y"), X + np.float32(1))
        np.testing.assert_array_equal(result.as_numpy("calls"), [calls, 1])
        assert result.as_numpy("other") is None


def test_every_dtype_passes_in_binary(client: triton.InferenceServerClient) -> None:
    generator = np.random.default_rng(4)
    inputs, sent = [], {}
    for tensor in client.get_model_metadata("every")["inputs"]:
        dtype = triton_to_numpy(tensor["datatype"])
        array = generator.integers(0, 2, tensor["shape"]).astype(dtype)
        sent[tensor["name"]] = array
        inputs.append(triton.InferInput(tensor["name"], tensor["shape"], tensor["datatype"]))
        inputs[-1].set_data_from_numpy(array)
    result = client.infer("every", inputs)
    for name, array in sent.items():
        if name != "x":
            np.testing.assert_array_equal(result.as_numpy(name.replace("in_", "out_")), array)


def triton_to_numpy(datatype: str) -> np.dtype:
    plain = datatype.lower().replace("fp", "float")
    return np.dtype(plain)


def test_a_model_is_unloaded_and_loaded(client: triton.InferenceServerClient) -> None:
    client.unload_model("m")
    assert not client.is_model_ready("m")
    index = {entry["name"]: entry for entry in client.get_model_repository_index()}
    assert (index["m"]["state"], index["m"]["reason"]) == ("UNAVAILABLE", "unloaded")
    with pytest.raises(InferenceServerException, match="model m is not ready: unloaded") as caught:
        client.infer("m", [x_input(binary=True)])
    assert caught.value.status() == "503"
    client.load_model("m")
    assert client.is_model_ready("m")
    np.testing.assert_array_equal(client.infer("m", [x_input(binary=True)]).as_numpy("y"), X + 1)


def test_errors_arrive_as_the_clients_exception(client: triton.InferenceServerClient) -> None:
    wrong = triton.InferInput("x", [4], "FP32")
    wrong.set_data_from_numpy(X.ravel())
    for infer, status, reason in (
        (("other", [x_input(binary=True)]), "404", "no model other"),
        (("m", [x_input(binary=True)], "9.9.9"), "404", "served in version 1.0.0 only"),
        (("m", [wrong]), "400", r'input "x" has shape \[4\], expected \[2,2\]'),
        (("m", []), "400", 'input "x" .* is missing'),
    ):
        with pytest.raises(InferenceServerException, match=reason) as caught:
            client.infer(*infer)
        assert caught.value.status() == status
    for ask in (client.get_model_config, client.get_inference_statistics):
        with pytest.raises(InferenceServerException, match="no such path"):
            ask("m")
    with pytest.raises(InferenceServerException, match='load takes no parameter "config"'):
        client.load_model("m", config="{}")
    with pytest.raises(InferenceServerException, match="no version of other is installed"):
        client.load_model("other")
    # The connection outlasts them all.
    assert client.infer("m", [x_input(binary=False)]).as_numpy("calls").tolist() == [1, 1]

"""A FAKE inference server: the protocol's extensions for binary tensors and for shared memory, written
from the protocol's text, over the arithmetic of data/fake_model.c with every dtype. On loopback TCP.
"""

from __future__ import annotations

import json
import mmap
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from edgepack.artefacts import TensorSpec
from tests.native.fake_device import FakeModel

LENGTH = "Inference-Header-Content-Length"
DATATYPES = {"bool": "BOOL", "float16": "FP16", "float32": "FP32", "float64": "FP64"}
MODEL = FakeModel(all_dtypes=True)


class Refused(Exception):
    """Answered with status 400."""


def described(spec: TensorSpec) -> dict[str, Any]:
    datatype = DATATYPES.get(spec.dtype, spec.dtype.upper())
    return {"name": spec.name, "datatype": datatype, "shape": list(spec.shape)}


class FakeServer(ThreadingHTTPServer):
    """Serves the fake model as ``m``; ``bodies`` holds every infer request's JSON."""

    daemon_threads = True

    def __init__(self, extensions: list[str]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.extensions = extensions
        self.regions: dict[str, mmap.mmap] = {}
        self.bodies: list[dict[str, Any]] = []
        self.close_idle = False
        """Close each connection after an answer without having said so."""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def infer(self, body: dict[str, Any], binary: bytes) -> tuple[dict[str, Any], bytes]:
        """The answer's JSON, and the bytes after it."""
        self.bodies.append(body)
        specs = {spec.name: spec for spec in MODEL.inputs}
        arrays = {}
        for tensor in body["inputs"]:
            spec = specs[tensor["name"]]
            if {"name", "datatype", "shape"} & tensor.keys() and (
                {key: tensor[key] for key in ("name", "datatype", "shape")} != described(spec)
            ):
                raise Refused(f"input {spec.name}: expected {described(spec)}")
            content, binary = self._content(tensor, spec, binary)
            arrays[spec.name] = np.frombuffer(content, spec.dtype).reshape(spec.shape)
        if binary or arrays.keys() != specs.keys():
            raise Refused("inputs are missing, or there are bytes left over")
        return self._answer(body, compute(arrays))

    def _content(
        self, tensor: dict[str, Any], spec: TensorSpec, binary: bytes
    ) -> tuple[bytes, bytes]:
        parameters = tensor.get("parameters", {})
        if "shared_memory_region" in parameters:
            return bytes(self._shared(parameters)), binary
        if "data" in tensor:
            return np.array(tensor["data"], spec.dtype).tobytes(), binary
        size = parameters["binary_data_size"]
        return binary[:size], binary[size:]

    def _shared(self, parameters: dict[str, Any]) -> memoryview:
        start = parameters["shared_memory_offset"]
        region = memoryview(self.regions[parameters["shared_memory_region"]])
        return region[start : start + parameters["shared_memory_byte_size"]]

    def _answer(
        self, body: dict[str, Any], results: dict[str, np.ndarray]
    ) -> tuple[dict[str, Any], bytes]:
        specs = {spec.name: spec for spec in MODEL.outputs}
        outputs, after = [], b""
        for wanted in body.get("outputs") or [{"name": name} for name in specs]:
            if wanted["name"] not in specs:
                raise Refused(f"there is no output {wanted['name']}")
            parameters = wanted.get("parameters", {})
            content = results[wanted["name"]].tobytes()
            output = described(specs[wanted["name"]])
            if "shared_memory_region" in parameters:
                self._shared(parameters)[:] = content
            else:
                output["parameters"] = {"binary_data_size": len(content)}
                after += content
            outputs.append(output)
        return {"model_name": "m", "model_version": "1.0.0", "outputs": outputs}, after


def compute(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """As data/fake_model.c does, but for the count of calls."""
    copies = {f"out_{name[3:]}": array for name, array in arrays.items() if name != "x"}
    return {"y": arrays["x"] + np.float32(1), "calls": np.array([1, 1])} | copies


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeServer

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        answers: dict[str, Any] = {
            "/v2": {"name": "fake", "version": "0", "extensions": self.server.extensions},
            "/v2/health/live": {},
            "/v2/health/ready": {},
            "/v2/models/m/ready": {},
            "/v2/models/m": {
                "name": "m",
                "versions": ["1.0.0"],
                "platform": "fake",
                "inputs": [described(spec) for spec in MODEL.inputs],
                "outputs": [described(spec) for spec in MODEL.outputs],
            },
        }
        if self.path in answers:
            self._send(200, answers[self.path])
        else:
            self._send(404, {"error": "there is no model of that name"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        end = int(self.headers.get(LENGTH, len(body)))
        try:
            self._post(json.loads(body[:end]), body[end:])
        except Refused as error:
            self._send(400, {"error": str(error)})

    def _post(self, body: dict[str, Any], binary: bytes) -> None:
        words = self.path.split("/")
        if self.path == "/v2/models/m/infer":
            self._send(200, *self.server.infer(body, binary))
        elif words[2] == "systemsharedmemory":
            if words[-1] == "register":
                descriptor = os.open(f"/dev/shm{body['key']}", os.O_RDWR)
                self.server.regions[words[4]] = mmap.mmap(descriptor, body["byte_size"])
                os.close(descriptor)
            else:
                del self.server.regions[words[4]]
            self._send(200, {})
        elif words[2] == "repository":
            index = [{"name": "m", "version": "1.0.0", "state": "READY", "reason": ""}]
            self._send(200, index if words[3] == "index" else {})
        else:
            self._send(404, {"error": "there is no model of that name"})

    def _send(self, status: int, body: Any, binary: bytes = b"") -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        if binary:
            self.send_header(LENGTH, str(len(text)))
        self.send_header("Content-Length", str(len(text + binary)))
        self.end_headers()
        self.wfile.write(text + binary)
        self.close_connection |= self.server.close_idle


@contextmanager
def fake_server(*extensions: str) -> Iterator[FakeServer]:
    """Run one while the block does."""
    with FakeServer(["model_repository", *extensions]) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()

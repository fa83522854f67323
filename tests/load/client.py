"""One client of the load: asks at random for one of the models, in one way, and checks every answer.

A process of its own, so that clients run beside each other: ``python -m tests.load.client WAY ADDRESS SEED``.
It ends with the end of its input, and then prints what it counted as one JSON object.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import select
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.native.fake_device import UnixConnection

WAYS = ("json", "binary", "shared")
MODELS = 4
MAX_FAILURES = 20
LENGTH = "Inference-Header-Content-Length"

Answer = tuple[int, dict[str, Any], tuple[float, ...], tuple[int, ...]]
"""Status, JSON, y and calls."""


def tag(model: int) -> int:
    """What the fake model numbered so shows in ``calls``."""
    return model + 1


def weight(version: str) -> float:
    """What version 1.N.0 of any model adds to each element."""
    return float(version.split(".")[1])


class Client:
    """A connection that is made again where the agent ended it, and the way of the tensors."""

    def __init__(self, way: str, address: str) -> None:
        self._address = address
        self._connection = self._connect()
        self._ask: Callable[[str, list[float]], Answer] = getattr(self, f"_{way}")
        self._region = f"load-{os.getpid()}"
        if way == "shared":
            self._memory = Path("/dev/shm") / f"edgepack-{self._region}"
            self._memory.write_bytes(bytes(4096))
            body = {"key": f"/{self._memory.name}", "byte_size": 4096}
            path = f"/v2/systemsharedmemory/region/{self._region}/register"
            status, answer, _ = self._post(path, json.dumps(body).encode())
            assert status == 200, answer
            self._file = self._memory.open("r+b", buffering=0)

    def ask(self, model: str, x: list[float]) -> Answer:
        """One inference; ConnectionError and http.client's where there was no answer."""
        return self._ask(f"/v2/models/{model}/infer", x)

    def close(self) -> None:
        """Takes the region away, too."""
        if hasattr(self, "_file"):
            self._file.close()
            self._post(f"/v2/systemsharedmemory/region/{self._region}/unregister", b"{}")
            self._memory.unlink()
        self._connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        if self._address.startswith("/"):
            return UnixConnection(Path(self._address))
        return http.client.HTTPConnection(self._address, timeout=30)

    def _post(
        self, path: str, body: bytes, json_bytes: int | None = None
    ) -> tuple[int, Any, bytes]:
        """Status, JSON and what follows it."""
        headers = {} if json_bytes is None else {LENGTH: str(json_bytes)}
        self._connection.request("POST", path, body=body, headers=headers)
        answer = self._connection.getresponse()
        content = answer.read()
        length = int(answer.headers.get(LENGTH, len(content)))
        return answer.status, json.loads(content[:length]), content[length:]

    def _json(self, path: str, x: list[float]) -> Answer:
        tensor = {"name": "x", "shape": [2, 2], "datatype": "FP32", "data": x}
        status, answer, _ = self._post(path, json.dumps({"inputs": [tensor]}).encode())
        if status != 200:
            return status, answer, (), ()
        outputs = {output["name"]: output["data"] for output in answer["outputs"]}
        return status, answer, tuple(outputs["y"]), tuple(outputs["calls"])

    def _binary(self, path: str, x: list[float]) -> Answer:
        parameters = {"binary_data_size": 16}
        tensor = {"name": "x", "shape": [2, 2], "datatype": "FP32", "parameters": parameters}
        text = {"inputs": [tensor], "parameters": {"binary_data_output": True}}
        head = json.dumps(text).encode()
        status, answer, data = self._post(path, head + struct.pack("<4f", *x), len(head))
        if status != 200:
            return status, answer, (), ()
        return status, answer, struct.unpack_from("<4f", data), struct.unpack_from("<2q", data, 16)

    def _shared(self, path: str, x: list[float]) -> Answer:
        self._file.seek(0)
        self._file.write(struct.pack("<4f", *x) + bytes(240))
        place = {"shared_memory_region": self._region, "shared_memory_byte_size": 16}
        tensor = {"name": "x", "shape": [2, 2], "datatype": "FP32", "parameters": place}
        outputs = [
            {"name": name, "parameters": place | {"shared_memory_offset": offset}}
            for name, offset in (("y", 64), ("calls", 128))
        ]
        text = json.dumps({"inputs": [tensor], "outputs": outputs}).encode()
        status, answer, _ = self._post(path, text)
        if status != 200:
            return status, answer, (), ()
        memory = os.pread(self._file.fileno(), 256, 0)
        y, calls = struct.unpack_from("<4f", memory, 64), struct.unpack_from("<2q", memory, 128)
        return status, answer, y, calls


def is_right(model: int, x: list[float], answer: Answer) -> bool:
    """By the version that the answer names."""
    _, text, y, calls = answer
    expected = tuple(value + weight(text["model_version"]) for value in x)
    return text["model_name"] == f"m{model}" and y == expected and calls[1] == tag(model)


def kind_of(status: int, text: dict[str, Any]) -> str:
    """What an answer counts as."""
    reason = str(text.get("error"))
    if status in (500, 503) and "signal 9" in reason:  # in a run, or while it was started again
        return "killed"
    if status == 503 and "unloaded" in reason:
        return "unloaded"
    if status == 503 and "wait already" in reason:
        return "full"
    if status == 503 and "started again in" in reason:
        return "restarting"
    return "other"


def main() -> None:
    """Until the input ends."""
    way, address, seed = sys.argv[1:]
    source, counts = random.Random(int(seed)), Counter[str]()
    failures: list[str] = []
    client = Client(way, address)
    slowest = 0.0
    while not select.select([sys.stdin], [], [], 0)[0]:
        model = source.randrange(MODELS)
        x = [float(source.randrange(-1000, 1000)) for _ in range(4)]
        began = time.monotonic()
        try:
            answer = client.ask(f"m{model}", x)
        except (OSError, http.client.HTTPException) as error:
            counts["lost"] += 1
            failures.append(f"{type(error).__name__}: {error}")
            client = Client(way, address)
            continue
        slowest = max(slowest, time.monotonic() - began)
        status, text, *_ = answer
        if status == 200:
            kind = "right" if is_right(model, x, answer) else "wrong"
        else:
            kind = kind_of(status, text)
        counts[kind] += 1
        if kind in ("wrong", "other"):
            failures.append(f"m{model} {x}: {answer}")
    client.close()
    print(json.dumps({"counts": counts, "failures": failures[:MAX_FAILURES], "slowest": slowest}))


if __name__ == "__main__":
    main()

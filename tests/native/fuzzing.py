"""Fuzzing of the agent's parsers: builds tests/native/fuzz, makes its seeds, runs it, looks around it.

Seeds are real: packages that edgepack writes and signs, requests as clients send them. The inputs made of
them follow from seed and iteration alone, so that a crash can be had again by its numbers.

A whole package goes through the same steps as with ``edgepack-agent install``, in a process whose root is a
directory of its own. After the run everything in there but the device's store must be as it was.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from edgepack.package import read_package
from edgepack.toolchain import RUNTIME, cache_directory
from edgepack.trust import PrivateKey, new_key
from tests import package_samples as samples
from tests.native.fake_device import FakeModel, request

SOURCES = Path(__file__).parent / "fuzz"
REQUESTS = ("http", "infer", "control", "path")
DOCUMENTS = (
    "tar",
    "index",
    "envelope",
    "statement",
    "model_info",
    "state",
    "rules",
    "push",
    "keys",
)
TARGETS = (*REQUESTS, *DOCUMENTS, "package")
PLANTED = ("planted-crash", "planted-fault", "planted-hang", "planted-file")
"""Defects that the fuzzer has to find."""

MEMORY = Path("/dev/shm/edgepack-fuzz")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one run of one target came to."""

    target: str
    iterations: int
    taken: int
    """Inputs that were taken for right."""
    seconds: float


class FuzzFailure(Exception):
    """A crash, a hang, or something outside of the device that changed."""


def build(place: Path) -> Path:
    """The fuzzer, with all safety checks."""
    program = place / "fuzz"
    caches = cache_directory() / "zig"
    command = [
        sys.executable,
        "-m",
        "ziglang",
        "build-exe",
        "-OReleaseSafe",
        f"-femit-bin={program}",
    ]
    command += ["--dep", "agent", f"-Mroot={SOURCES / 'main.zig'}"]
    command += ["--dep", "sandbox", f"-Magent={RUNTIME / 'agent' / 'parsers.zig'}"]
    command += [f"-Msandbox={RUNTIME / 'sandbox' / 'sandbox.zig'}"]
    command += ["--global-cache-dir", str(caches / "global"), "--cache-dir", str(caches / "local")]
    subprocess.run(command, cwd=place, check=True)
    return program


@dataclass(frozen=True, kw_only=True)
class Fuzzer:
    """The program and its seeds."""

    program: Path
    corpus: Path
    crashes: Path

    def run(self, target: str, *, seed: int, iterations: int, start: int = 0) -> Outcome:
        """Raises FuzzFailure with what the program said."""
        with tempfile.TemporaryDirectory(prefix="edgepack-fuzz-") as root, _shared_memory():
            place = Path(root)
            _furnish(place)
            before = _outside(place)
            began = time.monotonic()
            command = [str(self.program), str(self.corpus), target]
            command += [str(seed), str(start), str(iterations)]
            done = subprocess.run(
                command, cwd=place, capture_output=True, text=True, errors="replace", check=False
            )
            seconds = time.monotonic() - began
            for crash in place.glob("crash-*"):
                (self.crashes / crash.name).write_bytes(crash.read_bytes())
            if done.returncode:
                told = done.stderr.replace("./crash-", f"{self.crashes}/crash-")
                raise FuzzFailure(f"{target}: exit code {done.returncode}\n{told}")
            if changed := sorted(set(before.items()) ^ set(_outside(place).items())):
                raise FuzzFailure(f"{target}: outside of the device there changed: {changed}")
        answer = json.loads(done.stdout)
        assert answer["iterations"] == iterations
        return Outcome(target=target, iterations=iterations, taken=answer["taken"], seconds=seconds)


def make(place: Path) -> Fuzzer:
    """The fuzzer and its seeds, under ``place``."""
    corpus = place / "corpus"
    _write_corpus(corpus, place)
    return Fuzzer(program=build(place), corpus=corpus, crashes=place)


@contextmanager
def _shared_memory() -> Iterator[None]:
    """What the requests' region ``r`` lies in."""
    MEMORY.write_bytes(bytes(4096))
    try:
        yield
    finally:
        MEMORY.unlink(missing_ok=True)


def _furnish(place: Path) -> None:
    """What a path that leads out of the store could hit."""
    for name in ("device", "outside", "etc", "tmp"):
        (place / name).mkdir()
        (place / name / "file").write_text("as it was")
    (place / "file").write_text("as it was")
    (place / "link").symlink_to("outside")


def _outside(place: Path) -> dict[str, tuple[int, str]]:
    """Mode and contents of all that is not in the store, beside the package that is installed."""
    found = {}
    for path in sorted(place.rglob("*")):
        name = str(path.relative_to(place))
        if name in ("device", "package.epk") or name.startswith(("device/", "crash-")):
            continue
        content = path.read_bytes() if path.is_file() else b""
        found[name] = (path.lstat().st_mode, hashlib.sha256(content).hexdigest())
    return found


# ---- seeds -----------------------------------------------------------------------------------------


def _write_corpus(corpus: Path, work: Path) -> None:
    key = new_key("ed25519")
    seeds: dict[str, list[bytes]] = {name: [] for name in TARGETS}
    for path in _packages(work, key):
        entries = samples.unpack(path)
        package = read_package(path)
        assert package.envelope is not None
        statement = json.loads(package.envelope)["payload"]
        seeds["package"].append(path.read_bytes())
        seeds["tar"].append(path.read_bytes())
        seeds["envelope"].append(package.envelope)
        seeds["statement"].append(base64.b64decode(statement))
        root = json.loads(entries["index.json"])
        seeds["index"].append(entries["blobs/sha256/" + root["manifests"][0]["digest"][7:]])
    seeds["model_info"] = [json.dumps(model).encode() for model in _models()]
    seeds["state"] = _states()
    seeds["rules"] = _RULES
    seeds["push"] = _PUSH
    seeds["keys"] = _keys()
    seeds["infer"] = [*_infer_bodies()]
    seeds["control"] = _CONTROL
    seeds["path"] = [path.encode() for path in _PATHS]
    seeds["http"] = [*http_requests()]
    seeds |= dict.fromkeys(PLANTED, seeds["path"])
    for name, contents in seeds.items():
        (corpus / name).mkdir(parents=True)
        for number, content in enumerate(contents):
            (corpus / name / f"{number:03}").write_bytes(content)
    (corpus / "signing.seed").write_bytes(key.handle.private_bytes_raw())  # type: ignore[union-attr]


def _packages(work: Path, key: PrivateKey) -> Iterator[Path]:
    source = Path(__file__).with_name("fake_worker.c")
    out = work / "worker"
    command = [sys.executable, "-m", "ziglang", "cc", "-static", "-s", "-Os", str(source)]
    command += ["-target", f"{os.uname().machine}-linux-musl", "-o", str(out)]
    subprocess.run(command, check=True)
    for number, targets in enumerate(
        (["host"], ["host", "raspberrypi4"], ["raspberrypi5", "host"])
    ):
        path = work / f"{number}.epk"
        package = samples.write(path, *targets, worker=out.read_bytes(), weights=b"good")
        samples.signed(package, key)
        yield path


def _model(name: str, model: FakeModel) -> dict[str, Any]:
    return {
        "format": 1,
        "name": name,
        "version": "1.0.0",
        "target": {"name": "host", "arch": os.uname().machine},
        "inputs": [spec.to_dict() for spec in model.inputs],
        "outputs": [spec.to_dict() for spec in model.outputs],
        "arena_bytes": 4096,
        "weights_bytes": len(model.weights),
        "code_bytes": 0,
        "tolerance": 1e-4,
        "golden": {"count": 1},
    }


@cache
def _models() -> tuple[dict[str, Any], ...]:
    plain = _model("m", FakeModel())
    baseline = {"samples": 75, "inputs": [_BASELINE], "outputs": [_BASELINE, None]}
    return plain, _model("every", FakeModel(all_dtypes=True)), plain | {"baseline": baseline}


def _states() -> list[bytes]:
    kinds = ("manifest", "worker", "weights", "metadata", "golden", "envelope")
    one = {"version": "1.0.0"} | {kind: hashlib.sha256(kind.encode()).hexdigest() for kind in kinds}
    states = [
        (one, None, "1.0.0"),
        (one | {"version": "1.2.0"}, one, "1.10.3"),
        (None, one, "2.0.0"),
    ]
    return [
        json.dumps({"format": 1, "current": current, "previous": previous, "floor": floor}).encode()
        for current, previous, floor in states
    ]


_RULES = [
    b'{"every":10,"nan":true}',
    b'{"rate":0.25,"below":{"output":"y","value":-1.5},"above":{"output":"y","value":2}}',
    b'{"always":true,"max_bytes":1048576,"max_age_s":86400}',
    b'{"off":true}',
]

_PUSH = [
    b'{"url":"http://127.0.0.1:9000/captures","headers":{"Authorization":"Bearer abc"}}',
    b'{"url":"http://collector.example:80","method":"PUT","batch_bytes":65536,"interval_s":5}',
    b'{"url":"http://[::1]:9000/bucket","form":{"key":"a/${filename}","policy":"e30="}}',
]

_BASELINE = {
    "count": 300,
    "nan": 1,
    "infinite": 0,
    "mean": 0.5,
    "variance": 2.25,
    "min": -4.0,
    "max": 4.5,
    "edges": [-1.0, 0.0, 1.5],
    "counts": [30, 70, 100, 99],
}


def _keys() -> list[bytes]:
    seeds = []
    for kind in ("ecdsa-p256", "ed25519"):
        key = new_key(kind)
        seeds += [key.public_key.to_pem(), key.public_key.der, key.sign(b"message")]
    return seeds


def _inputs(*, binary: bool) -> tuple[list[dict[str, Any]], bytes]:
    """One input of every dtype, as JSON or behind it."""
    inputs, data = [], b""
    names = {"bool": "BOOL", "float16": "FP16", "float32": "FP32", "float64": "FP64"}
    for spec in FakeModel(all_dtypes=True).inputs:
        tensor: dict[str, Any] = {"name": spec.name, "shape": list(spec.shape)}
        tensor["datatype"] = names.get(spec.dtype, spec.dtype.upper())
        count = 1
        for extent in spec.shape:
            count *= extent
        if binary:
            tensor["parameters"] = {"binary_data_size": spec.nbytes}
            data += bytes(spec.nbytes)
        else:
            tensor["data"] = [True] * count if spec.dtype == "bool" else list(range(count))
        inputs.append(tensor)
    return inputs, data


def _infer_bodies() -> Iterator[bytes]:
    shared = {"shared_memory_region": "r", "shared_memory_byte_size": 16}
    tensor = {"name": "x", "shape": [2, 2], "datatype": "FP32"}
    x = request([0.5, -2, 3e7, 4], id="\u00fc1")
    yield json.dumps(x).encode()
    yield json.dumps(x, sort_keys=True).encode()
    nested = x | {
        "outputs": [{"name": "calls"}, {"name": "y", "parameters": {"binary_data": True}}]
    }
    nested["inputs"] = [tensor | {"data": [[1, None], [2.5, 1e-7]]}]
    yield json.dumps(nested, ensure_ascii=False).encode()
    binary = {"inputs": [tensor | {"parameters": {"binary_data_size": 16}}]}
    yield json.dumps(binary | {"parameters": {"binary_data_output": True}}).encode() + bytes(16)
    output = {"name": "y", "parameters": shared | {"shared_memory_offset": 64}}
    yield json.dumps({"inputs": [tensor | {"parameters": shared}], "outputs": [output]}).encode()
    for way in (False, True):
        inputs, data = _inputs(binary=way)
        yield json.dumps({"inputs": inputs}).encode() + data


_CONTROL = [
    b"{}",
    b'{"ready":true}',
    b'{"parameters":{}}',
    b'{"parameters":{"unload_dependents":false}}',
    b'{"key":"/edgepack-fuzz","offset":64,"byte_size":1024}',
]

_PATHS = [
    "/v2",
    "/v2/health/live",
    "/v2/health/ready",
    "/v2/models/m",
    "/v2/models/m/ready",
    "/v2/models/m/infer",
    "/v2/models/every/versions/1.0.0/infer",
    "/v2/models/m.x-1/versions/1.2.3/ready",
    "/v2/repository/index",
    "/v2/repository/models/m/load",
    "/v2/repository/models/m/unload",
    "/v2/systemsharedmemory/status",
    "/v2/systemsharedmemory/region/q/status",
    "/v2/systemsharedmemory/region/q/register",
    "/v2/systemsharedmemory/region/q/unregister",
    "/v2/systemsharedmemory/unregister",
    "/v2/status",
    "/metrics",
    "q/edgepack-fuzz",
]


def _request(method: str, path: str, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost:8000", "Accept: */*", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def _chunked(path: str, body: bytes, size: int) -> bytes:
    head = _request("POST", path, b"", "Transfer-Encoding: chunked")
    pieces = (body[i : i + size] for i in range(0, len(body), size))
    return head + b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in pieces) + b"0\r\n\r\n"


def http_requests() -> Iterator[bytes]:
    """All kinds of requests, and a few on one connection."""
    live = _request("GET", "/v2/health/live")
    for number, body in enumerate(_infer_bodies()):
        path = f"/v2/models/{'every' if number >= 5 else 'm'}/infer"
        length = body.rindex(b"}") + 1
        binary = [f"Inference-Header-Content-Length: {length}"] if length < len(body) else []
        yield _request("POST", path, body, *binary)
        yield live + _request("POST", path, body, "Expect: 100-continue", *binary) + live
        if not binary:
            yield _chunked(path, body, 37)
    for path in _PATHS[:5]:
        yield _request("GET", path)
    controls = zip(_CONTROL, ["index", "index", "models/m/load", "models/m/unload"], strict=False)
    for body, path in controls:
        yield _request("POST", f"/v2/repository/{path}", body)
    yield _request("POST", "/v2/systemsharedmemory/region/q/register", _CONTROL[-1])
    yield (
        live.replace(b"HTTP/1.1", b"HTTP/1.0").replace(b"Accept: */*", b"Connection: keep-alive")
        * 3
    )

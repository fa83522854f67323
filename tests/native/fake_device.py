"""A device's store with FAKE models (data/fake_model.c) in it, and its real agent and worker.

What the agent serves here was put into the store by hand, past every check of trust: these tests
are about serving.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from edgepack import toolchain
from edgepack.artefacts import Baseline, CompiledModel, TensorSpec
from edgepack.targets import Target, detect_host, load_target

SOURCE = Path(__file__).parent / "data" / "fake_model.c"

EMULATED = {"aarch64": "aarch64-generic", "armv7": "armv7-neon", "riscv64": "riscv64-generic"}
"""Other machines that tests run on, and the targets that their programs are built for."""

FIXED = ("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
EVERY_OTHER_DTYPE = (*FIXED, "float16", "float64")

PlainSocket = socket.socket
"""Its own name is a property of Device."""


@dataclass(frozen=True, kw_only=True)
class FakeModel:
    """One version of the fake model; ``tag`` and ``weights`` show in its answers."""

    tag: int = 1
    elements: int = 4
    all_dtypes: bool = False
    weight: float = 1.0
    baseline: Baseline | None = None

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """As data/fake_model.c has them."""
        return (TensorSpec(name="x", dtype="float32", shape=self._shape), *self._every("in_"))

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """As data/fake_model.c has them."""
        calls = TensorSpec(name="calls", dtype="int64", shape=(2,))
        y = TensorSpec(name="y", dtype="float32", shape=self._shape)
        return (y, calls, *self._every("out_"))

    @property
    def weights(self) -> bytes:
        """What the model adds to each element."""
        return struct.pack(f"<{self.elements}f", *[self.weight] * self.elements)

    @property
    def _shape(self) -> tuple[int, int]:
        return (self.elements // 2, 2)

    def _every(self, prefix: str) -> Iterator[TensorSpec]:
        if self.all_dtypes:
            for dtype in EVERY_OTHER_DTYPE:
                yield TensorSpec(name=prefix + dtype, dtype=dtype, shape=(3,))
            yield TensorSpec(name=prefix + "scalar", dtype="float32", shape=())

    def worker(self, target: Target | None = None) -> bytes:
        """The static executable, linked as a real one is."""
        return _link(self.tag, self.elements, self.all_dtypes, target or detect_host())


@cache
def _link(tag: int, elements: int, all_dtypes: bool, target: Target) -> bytes:
    defines = f"#define FAKE_TAG {tag}\n#define FAKE_ELEMENTS {elements}\n"
    if all_dtypes:
        defines += "#define FAKE_ALL_DTYPES\n"
    compiled = CompiledModel(
        target=target,
        inputs=(),
        outputs=(),
        kernels=_empty_object(target),
        plan_source=defines + SOURCE.read_text(),
        weights=b"",
        arena_bytes=0,
        calls=(),
    )
    return toolchain.link_worker(compiled).worker


@cache
def _empty_object(target: Target) -> bytes:
    command = [sys.executable, "-m", "ziglang", "cc", "-target", target.zig_static_triple]
    command += [f"-mcpu={target.zig_cpu}", "-c", "-x", "c", "/dev/null", "-o", "/dev/stdout"]
    return subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout


@cache
def c_program(source: str) -> bytes:
    """A static executable for this machine."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "program"
        command = [
            sys.executable,
            "-m",
            "ziglang",
            "cc",
            "-target",
            detect_host().zig_static_triple,
        ]
        command += ["-static", "-s", "-Os", "-x", "c", "-", "-o", str(out)]
        subprocess.run(command, input=source.encode(), check=True)
        return out.read_bytes()


def wait_until(condition: Callable[[], bool], *, seconds: float = 20) -> None:
    """Poll a condition that no event announces."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket, by the standard library's client."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=30)
        self._path = path

    def connect(self) -> None:
        """Called by the base class."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Status and parsed body; ``body`` is sent as JSON unless it is bytes."""
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        self.request(method, path, body=content, headers=headers)
        answer = self.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if text else None


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a device's programs are built for, and what runs them here."""

    name: str
    target: Target
    emulator: str = ""
    """A program of qemu-user; none for this machine's own programs."""

    def agent(self) -> Path:
        """The agent's executable."""
        return toolchain.build_agent(self.target)

    def command(self, program: Path) -> list[str]:
        """What starts a program of this machine here."""
        return [*filter(None, [self.emulator]), str(program)]

    def program(self, worker: bytes, root: Path) -> bytes:
        """What an agent that runs here has to execute for ``worker``, which is put under ``root``.

        qemu leaves the execution of a program to this machine's kernel, which may know no foreign ones.
        """
        if not self.emulator:
            return worker
        path = root / f"worker-{hashlib.sha256(worker).hexdigest()}"
        if not path.exists():
            path.write_bytes(worker)
            path.chmod(0o555)
        return f'#!/bin/sh\nexec env -i {shutil.which(self.emulator)} {path} "$@"\n'.encode()


def host_machine() -> Machine:
    """This machine."""
    return Machine(name="host", target=detect_host())


def emulated_machine(name: str) -> Machine:
    """One of EMULATED."""
    target = load_target(EMULATED[name])
    return Machine(name=name, target=target, emulator=target.qemu)


@dataclass
class Device:
    """A store and, while ``serving()``, its agent."""

    root: Path
    agent: Path
    machine: Machine = field(default_factory=host_machine)
    server: subprocess.Popen[str] | None = field(default=None)

    @property
    def socket(self) -> Path:
        """Where the agent listens by default."""
        return self.root / "run" / "agent.sock"

    def install(self, name: str, versions: Mapping[str, FakeModel]) -> None:
        """Make the last of ``versions`` current and the one before it previous."""
        entries = [self._entry(name, version, model) for version, model in versions.items()]
        state = {
            "format": 1,
            "current": entries[-1],
            "previous": entries[-2] if len(entries) > 1 else None,
            "floor": entries[-1]["version"],
        }
        place = self.root / "models" / name
        place.mkdir(parents=True, exist_ok=True)
        (place / "state.json.tmp").write_text(json.dumps(state))
        os.replace(place / "state.json.tmp", place / "state.json")

    def _entry(self, name: str, version: str, model: FakeModel) -> dict[str, str]:
        metadata = {
            "format": 1,
            "name": name,
            "version": version,
            "target": {"name": "host", "arch": self.machine.target.arch},
            "inputs": [spec.to_dict() for spec in model.inputs],
            "outputs": [spec.to_dict() for spec in model.outputs],
            "arena_bytes": 4096,
            "weights_bytes": len(model.weights),
            "code_bytes": 0,
            "tolerance": 1e-4,
            "golden": {"count": 1},
        }
        if model.baseline:
            metadata["baseline"] = model.baseline.to_dict()
        contents = {
            "manifest": b"manifest",
            "worker": self.machine.program(model.worker(self.machine.target), self.root),
            "weights": model.weights,
            "metadata": json.dumps(metadata).encode(),
            "golden": b"golden",
            "envelope": b"envelope",
        }
        return {"version": version} | {kind: self.blob(b) for kind, b in contents.items()}

    def blob(self, content: bytes) -> str:
        """Put it where its digest says."""
        digest = hashlib.sha256(content).hexdigest()
        path = self.root / "blobs" / "sha256" / digest
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_bytes(content)
            path.chmod(0o555)
        return digest

    def current(self, name: str, kind: str) -> Path:
        """The file of one of the current version's blobs."""
        state = json.loads((self.root / "models" / name / "state.json").read_text())
        return self.root / "blobs" / "sha256" / str(state["current"][kind])

    def command(self, *arguments: str) -> list[str]:
        """The agent's command line for this store."""
        return [*self.machine.command(self.agent), "--root", str(self.root), *arguments]

    @contextmanager
    def serving(
        self,
        *options: str,
        before: Callable[[], None] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Iterator[Device]:
        """Run the agent in the foreground; it must end cleanly on SIGTERM. ``before`` runs in its process."""
        log = self.root / "stderr"
        command = self.command("serve", *options)
        with log.open("a") as stderr:
            self.server = subprocess.Popen(
                command, stderr=stderr, text=True, preexec_fn=before, env=environment
            )
        try:
            wait_until(lambda: self.is_up() or self.server_ended())
            assert not self.server_ended(), log.read_text()
            yield self
            if not self.server_ended():
                self.server.send_signal(signal.SIGTERM)
                assert self.server.wait(20) == 0, log.read_text()
        finally:
            self.server.kill()
            self.server.wait()

    @property
    def tcp_address(self) -> str:
        """HOST:PORT, as the agent that was started last with ``--tcp`` tells it."""
        log = (self.root / "stderr").read_text()
        return str(re.findall(r"listening at (\S+:\d+)", log)[-1])

    def server_ended(self) -> bool:
        """Whether the agent that serving() started is gone."""
        assert self.server is not None
        return self.server.poll() is not None

    def is_up(self) -> bool:
        """Whether somebody accepts on the socket."""
        probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            probe.connect(str(self.socket))
        except OSError:
            return False
        else:
            return True
        finally:
            probe.close()

    def connect(self) -> UnixConnection:
        """A client's connection; the caller closes it."""
        return UnixConnection(self.socket)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """One request on a connection of its own."""
        connection = self.connect()
        try:
            return connection.ask(method, path, body, **headers)
        finally:
            connection.close()

    @contextmanager
    def plain_socket(self) -> Iterator[PlainSocket]:
        """A connection for bytes that are no proper HTTP."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as plain:
            plain.settimeout(30)
            plain.connect(str(self.socket))
            yield plain

    def exchange(self, *pieces: bytes) -> bytes:
        """Send bytes as they are, end our side, and read all that comes back."""
        with self.plain_socket() as plain:
            for piece in pieces:
                plain.sendall(piece)
            plain.shutdown(socket.SHUT_WR)
            received = b""
            while piece := plain.recv(65536):
                received += piece
            return received

    def workers(self) -> list[int]:
        """Process ids of the agent's children that are alive, whichever of its threads began them."""
        assert self.server is not None
        pids = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
        return [pid for pid in pids if stat_of(pid)[1:2] == [str(self.server.pid)]]


@contextmanager
def temporary_device(agent: Path, machine: Machine | None = None) -> Iterator[Device]:
    """Of this machine where none is given; not in pytest's tmp_path, since a Unix socket's path has
    107 bytes at most.
    """
    with tempfile.TemporaryDirectory(prefix="edgepack-") as root:
        (Path(root) / "run").mkdir()
        yield Device(root=Path(root), agent=agent, machine=machine or host_machine())


def request(x: Sequence[float], **more: Any) -> dict[str, Any]:
    """An infer request for the fake model without the other dtypes."""
    tensor = {"name": "x", "shape": [len(x) // 2, 2], "datatype": "FP32", "data": list(x)}
    return {"inputs": [tensor]} | more


def values(answer: dict[str, Any]) -> dict[str, list[Any]]:
    """The outputs' data by name."""
    return {output["name"]: output["data"] for output in answer["outputs"]}


def stat_of(pid: int) -> list[str]:
    """A process's state, its parent, and what else follows its name in proc(5)'s stat; empty where
    there is no such process.
    """
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def state_of(pid: int) -> str:
    """A process's state as ps shows it; X where there is none."""
    return (stat_of(pid) or ["X"])[0]


def has_ended(pid: int) -> bool:
    """Whether a process is gone but for its status, with the threads that an emulator may have."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return True
    return state_of(pid) in "ZX" and len(threads) <= 1


@contextmanager
def run_in_progress(device: Device, order: float) -> Iterator[list[tuple[int, Any]]]:
    """Send a request whose run sleeps, and wait until it does; the answer is in the list afterwards."""
    (worker,) = device.workers()

    def times_asleep() -> int:
        status = Path(f"/proc/{worker}/status").read_text()
        return int(status.split("voluntary_ctxt_switches:")[1].split()[0])

    wait_until(lambda: state_of(worker) == "S")
    before = times_asleep()
    answers: list[tuple[int, Any]] = []
    body = request([order, 0, 0, 0])
    thread = threading.Thread(
        target=lambda: answers.append(device.ask("POST", "/v2/models/m/infer", body))
    )
    thread.start()
    wait_until(lambda: times_asleep() > before and state_of(worker) == "S")
    yield answers
    thread.join(20)

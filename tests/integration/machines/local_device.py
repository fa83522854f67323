"""This machine as a device: the real agent over a real sshd, its store in a temporary directory."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

import edgepack.package
from edgepack import toolchain
from edgepack.artefacts import PushResult, SignedPackage
from edgepack.channels import ChannelOptions, device, push
from edgepack.channels.device_status import DeviceStatus
from edgepack.targets import load_target
from tests.integration.machines.models import KEY
from tests.integration.machines.ports import wait_until
from tests.integration.machines.sshd import SSHServer

TARGET = "host"


@cache
def agent_binary(target: str = TARGET) -> Path:
    """The agent for a target, out of the cache or built now."""
    return toolchain.build_agent(load_target(target))


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=20)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(str(self._path))


def infer(
    connection: http.client.HTTPConnection, x: np.ndarray, model: str = "linear"
) -> np.ndarray:
    """What the agent behind the connection answers to the input ``x``."""
    tensor = {"name": "x", "datatype": "FP32", "shape": list(x.shape), "data": x.tolist()}
    with contextlib.closing(connection):
        body = json.dumps({"inputs": [tensor]})
        headers = {"Content-Type": "application/json"}
        connection.request("POST", f"/v2/models/{model}/infer", body, headers)
        response = connection.getresponse()
        answer = json.loads(response.read())
    assert response.status == 200, answer
    (output,) = answer["outputs"]
    return np.array(output["data"], np.float32).reshape(output["shape"])


@dataclass
class LocalDevice:
    """A device whose store is ``root``, reached through ``server`` as host ``device``."""

    server: SSHServer
    root: Path
    options: ChannelOptions = field(init=False)

    def __post_init__(self) -> None:
        self.options = ChannelOptions(ssh_config=self.server.client_config("device"))

    @property
    def url(self) -> str:
        return f"ssh://device{quote(str(self.root))}"

    def setup(self) -> device.SetupResult:
        return device.setup(
            self.url,
            target=load_target(TARGET),
            agent_binary=agent_binary(),
            trust_keys=[("release.pub", KEY.public_key.to_pem())],
            options=self.options,
        )

    def push(self, package: SignedPackage, options: ChannelOptions | None = None) -> PushResult:
        return push(package, self.url, contents=edgepack.package, options=options or self.options)

    def status(self) -> DeviceStatus:
        return device.status(self.url, options=self.options)

    def version(self, model: str = "linear") -> str | None:
        """The version that is installed."""
        for entry in self.status().models:
            if entry.name == model and entry.current:
                return entry.current.version
        return None

    def infer(self, x: np.ndarray, model: str = "linear") -> np.ndarray:
        """An answer of the served API."""
        return infer(UnixConnection(self.root / "run/agent.sock"), x, model)

    def agent(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        """Run the agent's own command line on the device: exit code and answer."""
        command = [str(self.root / "bin/edgepack-agent"), "--root", str(self.root), *arguments]
        done = subprocess.run(command, capture_output=True, timeout=120)
        (line,) = done.stdout.splitlines()
        return done.returncode, json.loads(line)

    def leftovers(self) -> list[Path]:
        """Files of uploads and unfinished blobs."""
        return [*(self.root / "incoming").iterdir(), *(self.root / "blobs").rglob("tmp.*")]

    def processes(self) -> list[int]:
        """Agents (and nothing else) that run from this root."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if os.readlink(process / "exe").startswith(f"{self.root.resolve()}/bin/"):
                    found.append(int(process.name))
        return found

    def stop(self) -> None:
        """End the agents that run from this root."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not self.processes(), 20, "the agent ends")


@contextlib.contextmanager
def local_device(server: SSHServer, root: Path | None = None) -> Iterator[LocalDevice]:
    """A device that was set up; its agent serves. The root's path is short, for its socket."""
    folder = Path(tempfile.mkdtemp(prefix="edge"))
    found = LocalDevice(server, root or folder / "store")
    try:
        found.setup()
        yield found
    finally:
        found.stop()
        shutil.rmtree(folder)

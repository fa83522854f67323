"""The device's side of the demo: ask a served model, and end what runs there."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=120)
        self._path = str(path)

    def connect(self) -> None:
        """Connect to the socket instead of a host."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def infer(agent_socket: Path, model: str, name: str, tensor: np.ndarray) -> np.ndarray:
    """Ask the agent, by the Open Inference Protocol v2; returns the model's first output."""
    request = {
        "inputs": [
            {
                "name": name,
                "datatype": "FP32",
                "shape": list(tensor.shape),
                "data": tensor.ravel().tolist(),
            }
        ]
    }
    connection = UnixConnection(agent_socket)
    with contextlib.closing(connection):
        connection.request("POST", f"/v2/models/{model}/infer", json.dumps(request))
        response = connection.getresponse()
        answer: dict[str, Any] = json.loads(response.read())
    if response.status != 200:
        raise SystemExit(f"the device answered {response.status}: {answer}")
    output = answer["outputs"][0]
    return np.array(output["data"], np.float32).reshape(output["shape"])


def stop_device(root: Path, service: str) -> None:
    """End what `device setup` started: its systemd unit where it made one, else its processes."""
    if service:
        subprocess.run(["systemctl", "disable", "--quiet", "--now", service], check=False)
        Path("/etc/systemd/system", service).unlink(missing_ok=True)
        subprocess.run(["systemctl", "daemon-reload"], check=False)
    for number, wait in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 1.0)):
        deadline = time.monotonic() + wait
        for process in _processes(root):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)
        while _processes(root) and time.monotonic() < deadline:
            time.sleep(0.05)


def _processes(root: Path) -> list[int]:
    """Processes whose executable lies in the device's root."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and (entry / "exe").readlink().is_relative_to(root):
                found.append(int(entry.name))
    return found

"""A machine of arm64.py as a device of edgepack."""

from __future__ import annotations

import http.client
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

import edgepack.package
from edgepack.artefacts import PushResult, SignedPackage
from edgepack.channels import ChannelOptions, device, push
from edgepack.channels.device_status import DeviceStatus
from edgepack.channels.ssh_session import open_session
from edgepack.targets import load_target
from tests.integration.machines import arm64, models
from tests.integration.machines.local_device import agent_binary, infer
from tests.integration.machines.models import KEY, compile_linear, signed

TARGET = "raspberrypi4"
URL = "ssh://device"
X = np.linspace(-1, 1, models.SIZE, dtype=np.float32)[None]


@dataclass
class EdgeDevice:
    """It is reached as root, at the port that its machine has on this one."""

    machine: arm64.Machine
    folder: Path
    """For packages."""
    options: ChannelOptions = field(init=False)

    def __post_init__(self) -> None:
        self.options = ChannelOptions(ssh_config=self.machine.server.client_config("machine"))

    def set_up(self) -> device.SetupResult:
        """Put the agent there."""
        return device.setup(
            URL,
            target=load_target(TARGET),
            agent_binary=agent_binary(TARGET),
            trust_keys=[("release", KEY.public_key.to_pem())],
            options=self.options,
        )

    def package(self, number: int, target: str = TARGET) -> SignedPackage:
        """Version 1.0.``number``, whose weights only that version has."""
        package = compile_linear(self.folder, f"1.0.{number}", target, seed=number)
        return signed(package)

    def push(self, package: SignedPackage, **options: Any) -> PushResult:
        return push(
            package,
            URL,
            contents=edgepack.package,
            options=replace(self.options, **options),
        )

    def status(self) -> DeviceStatus:
        return device.status(URL, options=self.options)

    def number(self) -> int:
        """Of the version that is installed."""
        (model,) = self.status().models
        assert model.current is not None
        return int(model.current.version.rpartition(".")[2])

    def assert_serves(self, number: int) -> None:
        """The answer of the served API is that version's."""
        connection = http.client.HTTPConnection("127.0.0.1", self.machine.http_port, timeout=30)
        got = infer(connection, X)
        expected = np.maximum(X @ models.weights(number), 0)
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)

    def run(self, command: str) -> str:
        """What a command of the shell says there, on stdout and then on stderr."""
        with open_session(URL, self.options) as (session, _):
            done = session.run(command, timeout=60)
            return done.stdout.decode() + done.stderr

    def leftovers(self) -> list[str]:
        """Uploads, and blobs that nothing needs or that are not whole."""
        folder = "/var/lib/edgepack"
        return self.run(
            f"cd {folder} && ls incoming && ls -A blobs/sha256 | grep -v '^[0-9a-f]*$'"
        ).split()

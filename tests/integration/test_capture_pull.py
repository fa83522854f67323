"""`edgepack device capture pull` over a real sshd, from the real agent."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgepack import captures
from edgepack.captures import PullResult, pull
from edgepack.channels.captures import open_captures
from edgepack.errors import ChannelError, ConfigError, DeviceError
from tests.capture_samples import segment
from tests.conftest import Edgepack
from tests.integration.machines import sshd
from tests.integration.machines.local_device import LocalDevice, agent_binary
from tests.integration.machines.sshd import SSHServer, ssh_server

pytestmark = pytest.mark.needs(*sshd.PROGRAMS)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SSHServer]:
    with ssh_server(tmp_path_factory.mktemp("sshd")) as found:
        yield found


@pytest.fixture
def device(server: SSHServer, tmp_path: Path) -> LocalDevice:
    """Its agent does not serve: what is pulled is what lies there."""
    found = LocalDevice(server, tmp_path / "store")
    (found.root / "bin").mkdir(parents=True)
    shutil.copy2(agent_binary(), found.root / "bin" / "edgepack-agent")
    return found


def pulled(device: LocalDevice, out: Path, *models: str, form: str = "npz") -> PullResult:
    with open_captures(device.url, device.options) as source:
        return pull(source, out, models, form=form)


def capture(device: LocalDevice, numbers: range, model: str = "m", **changes: Any) -> Path:
    return segment(device.root / "captures" / model, numbers, model=model, **changes)


def numbers(out: Path) -> list[int]:
    return [record.number for record in captures.read(out)]


@pytest.mark.parametrize("form", ["npz", "parquet"])
def test_a_pull_brings_all_and_the_next_what_is_new(
    device: LocalDevice, tmp_path: Path, form: str
) -> None:
    out = tmp_path / "out"
    capture(device, range(1, 101), size=1000)
    capture(device, range(7, 9), "n")
    first = pulled(device, out, form=form)
    assert [(m.name, m.records) for m in first.models] == [("m", 100), ("n", 2)]
    assert first.device == (device.root / "captures" / "id").read_text()
    capture(device, range(1025, 1030))
    second = pulled(device, out, form=form)
    assert [(m.name, m.records, m.gaps) for m in second.models] == [("m", 5, []), ("n", 0, [])]
    assert numbers(out / "m") == [*range(1, 101), *range(1025, 1030)]


class Cutting:
    """A source whose SSH connection loses the process at its other end after so many bytes."""

    def __init__(self, source: Any, at: int) -> None:
        self._source, self._left = source, at
        self.name = source.name
        self.listing = source.listing

    def open(self, model: str, after: int) -> Any:
        self._opened = self._source.open(model, after)
        return self

    def __enter__(self) -> Cutting:
        self._stream = self._opened.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._opened.__exit__(*error)

    @property
    def gone(self) -> list[tuple[int, int]]:
        gone: list[tuple[int, int]] = self._stream.gone
        return gone

    def read(self, size: int) -> bytes:
        data: bytes = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            kill_session()
        return data


def kill_session() -> None:
    """Kill the sshd that serves this process's connection; every other stays."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes()
            environment = (process / "environ").read_bytes()
        except OSError:
            continue
        del environment
        if words.startswith(b"sshd") and b"@notty" in words:
            os.kill(int(process.name), signal.SIGKILL)

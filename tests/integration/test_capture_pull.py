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
from edgepack.channels import ChannelOptions
from edgepack.channels.captures import AgentStream, open_captures
from edgepack.errors import ChannelError, ConfigError, DeviceError
from tests.capture_samples import segment
from tests.conftest import Edgepack
from tests.integration.machines import sshd
from tests.integration.machines.local_device import LocalDevice, agent_binary
from tests.integration.machines.proxy import cutter
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
    """Of the captures in ``out``; of none, where no file is there yet."""
    if not any(out.rglob("*.npz")) and not any(out.rglob("*.parquet")):
        return []
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
    assert first.device == (device.root / "captures/.device").read_text()
    capture(device, range(1025, 1030))
    second = pulled(device, out, form=form)
    assert [(m.name, m.records, m.gaps) for m in second.models] == [("m", 5, []), ("n", 0, [])]
    assert numbers(out / "m") == [*range(1, 101), *range(1025, 1030)]


def test_a_connection_that_breaks_keeps_what_came_whole_and_the_next_pull_goes_on(
    device: LocalDevice, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    for first in range(1, 400, 40):
        capture(device, range(first, first + 40), size=5000)
    before = 0
    with cutter(device.server.port) as proxy:
        config = device.server.client_config("cut", port=proxy.port)
        for limit in range(1_000_000, 6_000_000, 1_000_000):
            proxy.received, proxy.limit_received = 0, limit
            with (
                pytest.raises(ChannelError, match="connection was lost") as caught,
                open_captures(device.url, ChannelOptions(ssh_config=config)) as source,
            ):
                pull(source, out)
            assert "goes on from there" in caught.value.hint
            there = numbers(out)
            assert there == list(range(1, len(there) + 1))
            # A reset also drops what the client has not read, which on a busy machine may be all.
            assert before <= len(there) < 400
            before = len(there)
    assert before > 0
    (rest,) = pulled(device, out).models
    assert (rest.first, rest.last) == (before + 1, 400)
    assert numbers(out) == list(range(1, 401))


def test_an_agent_that_is_killed_while_it_streams_keeps_what_came_whole(
    device: LocalDevice, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    for first in range(1, 400, 40):
        capture(device, range(first, first + 40), size=5000)

    class Killing(AgentStream):
        received = 0

        def read(self, size: int) -> bytes:
            data = super().read(size)
            self.received += len(data)
            if self.received >= 1_000_000:  # records are 40,000 bytes
                for pid in device.processes():
                    os.kill(pid, signal.SIGKILL)
            return data

    with open_captures(device.url, device.options) as source, pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgepack.channels.captures.AgentStream", Killing)
        with pytest.raises(DeviceError, match="cannot read the captures of m"):
            pull(source, out)
    there = numbers(out)
    assert 0 < len(there) < 400
    assert there == list(range(1, len(there) + 1))
    pulled(device, out)
    assert numbers(out) == list(range(1, 401))


def test_what_the_device_dropped_before_is_told(device: LocalDevice, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = capture(device, range(1, 5))
    pulled(device, out)
    capture(device, range(1025, 1030))
    second = capture(device, range(2049, 2050))
    first.unlink()
    (device.root / "captures/m" / f"{1025:016x}.seg").unlink()
    (model,) = pulled(device, out).models
    assert (model.records, model.gaps) == (1, [(5, 2048)])
    second.unlink()


def test_what_cannot_be_pulled_is_told_in_one_line(device: LocalDevice, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="has captured nothing"):
        pulled(device, tmp_path / "out")
    capture(device, range(1, 3))
    with pytest.raises(DeviceError, match="no captures of 'other'"):
        pulled(device, tmp_path / "out", "other")
    pulled(device, tmp_path / "out")
    other = device.root / "captures/.device"
    other.write_text("f" * 32)
    with pytest.raises(ConfigError, match="another device"):
        pulled(device, tmp_path / "out")


def test_the_command_shows_what_came_and_warns_of_what_did_not(
    device: LocalDevice, tmp_path: Path, edgepack: Edgepack
) -> None:
    capture(device, range(3, 6))
    environment = os.environ | {"EDGEPACK_SSH_CONFIG": str(device.options.ssh_config)}
    command = ("device", "capture", "pull", device.url, "m", "--out", tmp_path / "out")
    done = edgepack(*command, "--json", env=environment)
    assert done.returncode == 0, done.stderr
    (model,) = json.loads(done.stdout)["models"]
    assert (model["records"], model["gaps"]) == (3, [{"first": 1, "last": 2}])
    assert "warning: m: numbers 1 to 2 went from the device before" in done.stderr
    done = edgepack(*command, env=environment)
    assert "nothing new" in done.stdout
    done = edgepack(*command, "--format", "csv", env=environment)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.splitlines()[0] == "error: 'csv' is no format"

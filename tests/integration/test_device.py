from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgepack.channels import device as operations
from edgepack.errors import ConfigError, DeviceError
from edgepack.targets import load_target
from edgepack.trust import PrivateKey, new_key
from tests.integration.machines import sshd
from tests.integration.machines.local_device import LocalDevice, agent_binary, local_device
from tests.integration.machines.models import KEY
from tests.integration.machines.sshd import SSHServer, ssh_server

pytestmark = pytest.mark.needs(*sshd.PROGRAMS)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SSHServer]:
    with ssh_server(tmp_path_factory.mktemp("sshd")) as found:
        yield found


@pytest.fixture
def device(server: SSHServer) -> Iterator[LocalDevice]:
    with local_device(server) as found:
        yield found


def setup(
    device: LocalDevice,
    *keys: tuple[str, bytes],
    target: str = "host",
    binary: Path | None = None,
) -> operations.SetupResult:
    return operations.setup(
        device.url,
        target=load_target(target),
        agent_binary=binary or agent_binary(),
        trust_keys=keys,
        options=device.options,
    )


def public(key: PrivateKey) -> bytes:
    return key.public_key.to_pem()


def test_setup_lays_out_the_store_and_starts_the_agent(device: LocalDevice) -> None:
    root = device.root
    modes = {p.name: p.stat().st_mode & 0o777 for p in root.iterdir() if p.is_dir()}
    for folder in ("bin", "trust", "blobs", "models", "run"):
        assert modes[folder] == 0o755
    assert modes["incoming"] == 0o700
    assert (root / "config.json").read_bytes() == b'{"target":"host"}'
    assert (root / "trust/release.pub").read_bytes() == public(KEY)
    status = device.status()
    assert status.serving
    assert (status.target, status.keys) == ("host", (KEY.public_key.key_id,))
    assert status.models == ()
    assert not list(root.rglob("*.part"))


def test_events_tell_of_the_start(device: LocalDevice) -> None:
    (start,) = operations.events(device.url, options=device.options)
    assert (start.sequence, start.event, start.model) == (1, "start", None)


def test_setup_again_replaces_the_running_agent_and_keeps_the_keys(device: LocalDevice) -> None:
    (before,) = device.processes()
    result = setup(device)
    (after,) = device.processes()
    assert after != before
    assert result.service == ""
    assert result.to_dict()["status"]["keys"] == [KEY.public_key.key_id]


def test_setup_makes_the_given_keys_the_trusted_ones(device: LocalDevice) -> None:
    one, two = new_key("ecdsa-p256"), new_key("ed25519")
    result = setup(device, ("one", public(one)), ("two.pub", public(two)))
    assert set(result.status.keys) == {one.public_key.key_id, two.public_key.key_id}
    assert {p.name for p in (device.root / "trust").iterdir()} == {"one.pub", "two.pub"}


def test_machine_of_another_architecture_is_refused_before_anything_is_written(
    server: SSHServer, tmp_path: Path
) -> None:
    found = LocalDevice(server, tmp_path / "store")
    other = "riscv64-generic"
    with pytest.raises(DeviceError) as caught:
        setup(found, ("k", public(KEY)), target=other)
    assert os.uname().machine in caught.value.message
    assert "riscv64" in caught.value.message
    assert caught.value.check == "target"
    assert not found.root.exists()


def test_first_setup_without_a_key_is_refused(server: SSHServer, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no key to trust") as caught:
        setup(LocalDevice(server, tmp_path / "store"))
    assert "--trust KEY.pub" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "pem", "reason"),
    [
        ("k.key", new_key("ecdsa-p256").to_pem(), "private key"),
        ("k.pub", b"ssh-ed25519 AAAA", "not a public key"),
        ("../k.pub", public(KEY), "no name for a key"),
        ("-rf", public(KEY), "no name for a key"),
    ],
)
def test_what_is_no_public_key_is_refused_before_it_leaves(
    server: SSHServer, tmp_path: Path, name: str, pem: bytes, reason: str
) -> None:
    found = LocalDevice(server, tmp_path / "store")
    with pytest.raises(ConfigError, match=reason):
        setup(found, (name, pem))
    assert not found.root.exists()


def test_agent_that_does_not_run_leaves_the_old_one_serving(
    device: LocalDevice, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho it cannot run here >&2\nexit 126\n")
    before = device.processes()
    with pytest.raises(DeviceError, match="it cannot run here"):
        setup(device, binary=broken)
    assert device.processes() == before
    assert device.status().serving
    assert [p.name for p in (device.root / "bin").iterdir()] == ["edgepack-agent"]


def test_root_that_cannot_be_written_is_a_device_error(server: SSHServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DeviceError, match="mkdir failed"):
        setup(LocalDevice(server, tmp_path / "file/store"), ("k", public(KEY)))


def test_status_without_an_agent_says_how_to_put_one_there(
    server: SSHServer, tmp_path: Path
) -> None:
    with pytest.raises(DeviceError, match="no agent") as caught:
        LocalDevice(server, tmp_path / "store").status()
    assert "edgepack device setup" in caught.value.hint

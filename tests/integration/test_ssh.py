from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgepack.artefacts import SignedPackage
from edgepack.channels import ChannelOptions, capture_rules
from edgepack.channels.capture_rules import CaptureRules, Threshold
from edgepack.channels.ssh_session import open_session
from edgepack.cli import capture_text
from edgepack.errors import ChannelError, ConfigError, DeviceError, EdgepackError, TrustError
from edgepack.package import attach_envelope, write_package
from edgepack.trust import new_key, sign, verify
from tests import package_samples
from tests.conftest import unavailable
from tests.integration.machines import models, sshd
from tests.integration.machines.local_device import LocalDevice, local_device
from tests.integration.machines.models import compile_linear, signed
from tests.integration.machines.ports import free_ports, wait_until
from tests.integration.machines.proxy import cutter
from tests.integration.machines.sshd import SSHServer, keygen, ssh_server

pytestmark = pytest.mark.needs(*sshd.PROGRAMS)
X = np.linspace(-1, 1, models.SIZE, dtype=np.float32)[None]
Packages = Callable[..., SignedPackage]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SSHServer]:
    with ssh_server(tmp_path_factory.mktemp("sshd")) as found:
        yield found


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Packages:
    """``packages("1.0.0", seed=1)``: each compiled once."""
    folder = tmp_path_factory.mktemp("packages")
    made: dict[tuple[object, ...], SignedPackage] = {}

    def make(version: str, *targets: str, seed: int = 0, size: int = models.SIZE) -> SignedPackage:
        key = (version, targets, seed, size)
        if key not in made:
            chosen = targets or ("host",)
            made[key] = signed(compile_linear(folder, version, *chosen, seed=seed, size=size))
        return made[key]

    return make


@pytest.fixture
def device(server: SSHServer) -> Iterator[LocalDevice]:
    with local_device(server) as found:
        yield found


def answer(seed: int) -> np.ndarray:
    expected: np.ndarray = np.maximum(X @ models.weights(seed), 0)
    return expected


def assert_serves(device: LocalDevice, seed: int) -> None:
    np.testing.assert_allclose(device.infer(X), answer(seed), rtol=1e-4, atol=1e-5)


# ---- pushing -------------------------------------------------------------------------------------


def test_push_installs_and_serves_and_a_second_version_sends_only_what_is_new(
    device: LocalDevice, packages: Packages
) -> None:
    first = device.push(packages("1.0.0", seed=1))
    assert (first.skipped_blobs, first.detail["previous"]) == (0, None)
    assert_serves(device, seed=1)
    second = device.push(packages("1.1.0", seed=2))
    assert second.skipped_blobs >= 1, "the worker is the same"
    assert second.sent_bytes < first.sent_bytes - 20_000
    assert (second.detail["previous"], second.detail["changed"]) == ("1.0.0", True)
    assert_serves(device, seed=2)
    again = device.push(packages("1.1.0", seed=2))
    assert again.detail["changed"] is False
    assert again.sent_bytes < 20_000
    assert device.leftovers() == []


def test_rollback_goes_back_and_the_newer_version_may_come_again(
    device: LocalDevice, packages: Packages
) -> None:
    from edgepack.channels import device as operations

    device.push(packages("1.0.0", seed=1))
    device.push(packages("1.1.0", seed=2))
    answer = operations.rollback(device.url, "linear", options=device.options)
    assert (answer["version"], device.version()) == ("1.0.0", "1.0.0")
    assert_serves(device, seed=1)
    device.push(packages("1.1.0", seed=2))
    assert_serves(device, seed=2)


def test_rollback_of_what_is_not_there_is_a_device_error(device: LocalDevice) -> None:
    from edgepack.channels import device as operations

    with pytest.raises(DeviceError):
        operations.rollback(device.url, "nothing", options=device.options)


def test_rules_of_capture_are_set_and_followed_and_told(
    device: LocalDevice, packages: Packages
) -> None:
    device.push(packages("1.0.0", seed=1))
    url, options = device.url, device.options
    rules = CaptureRules(every=2, below=Threshold("y", -1e9), max_bytes=1 << 20, max_age_s=3600)
    answer = capture_rules.set_rules(url, "linear", rules, options=options)
    assert answer == {"ok": True, "model": "linear", "serving": True}
    for _ in range(3):
        assert_serves(device, seed=1)
    (told,) = capture_rules.status(url, options=options)
    assert (told["model"], told["rules"], told["next"]) == ("linear", rules.to_dict(), 3)
    wrong = CaptureRules(above=Threshold("z", 0))
    with pytest.raises(ConfigError, match='no output "z"; the first is "y"'):
        capture_rules.set_rules(url, "linear", wrong, options=options)
    capture_rules.turn_off(url, "linear", options=options)
    assert_serves(device, seed=1)
    (told,) = capture_rules.status(url, "linear", options=options)
    assert (told["rules"], told["count"], told["next"]) == ({"off": True}, 2, 3)
    shown = capture_text.status([told])
    assert re.search(r"linear +2 .* 0 +nothing is captured", shown), shown


@pytest.mark.parametrize(("version", "seed"), [("1.0.9", 3), ("1.1.0", 3)])
def test_lower_version_and_other_contents_of_the_same_are_refused_before_anything_is_sent(
    device: LocalDevice, packages: Packages, version: str, seed: int
) -> None:
    device.push(packages("1.1.0", seed=2))
    options = replace(device.options, progress=lambda done, total: pytest.fail("it was sent"))
    with pytest.raises(TrustError) as caught:
        device.push(packages(version, seed=seed), options)
    assert caught.value.check == "version"
    assert device.version() == "1.1.0"
    assert_serves(device, seed=2)


def test_package_for_another_target_is_refused_before_anything_is_sent(
    device: LocalDevice, packages: Packages
) -> None:
    options = replace(device.options, progress=lambda done, total: pytest.fail("it was sent"))
    with pytest.raises(DeviceError, match="raspberrypi4") as caught:
        device.push(packages("1.0.0", "raspberrypi4"), options)
    assert caught.value.check == "target"
    assert caught.value.hint == "edgepack compile MODEL --target host"


def test_one_package_of_many_targets_sends_only_the_devices_own(
    device: LocalDevice, packages: Packages
) -> None:
    package = packages("1.0.0", "raspberrypi4", "host", seed=1)
    result = device.push(package)
    assert result.sent_bytes < package.package.path.stat().st_size - 20_000
    assert_serves(device, seed=1)


def test_package_of_a_key_that_the_device_does_not_trust_is_a_trust_error(
    device: LocalDevice, packages: Packages
) -> None:
    device.push(packages("1.0.0", seed=1))
    stranger = signed(packages("1.1.0", seed=2).package, new_key("ed25519"))
    stranger_only = replace(stranger.package, envelope=None)
    key = new_key("ecdsa-p256")
    path = stranger_only.path.with_name("stranger.epk")
    package = attach_envelope(stranger_only, sign(stranger_only, key), path)
    with pytest.raises(TrustError) as caught:
        device.push(verify(package, [key.public_key]))
    assert caught.value.check == "key"
    assert_serves(device, seed=1)
    assert device.leftovers() == []


def test_worker_that_does_not_run_is_a_device_error_and_the_old_version_serves(
    device: LocalDevice, packages: Packages, tmp_path: Path
) -> None:
    device.push(packages("1.0.0", seed=1))
    content = package_samples.content("host", worker=b"\x7fELF, but no more than that")
    broken = write_package(tmp_path / "x.epk", name="linear", version="1.1.0", models=[content])
    with pytest.raises(DeviceError) as caught:
        device.push(signed(broken))
    assert caught.value.check in ("worker", "golden")
    assert device.version() == "1.0.0"
    assert_serves(device, seed=1)
    assert device.leftovers() == []


def test_no_agent_is_a_device_error_with_the_setup_command(
    server: SSHServer, packages: Packages, tmp_path: Path
) -> None:
    nowhere = LocalDevice(server, tmp_path / "nowhere")
    with pytest.raises(DeviceError, match="no agent") as caught:
        nowhere.push(packages("1.0.0", seed=1))
    assert caught.value.hint.startswith(f"edgepack device setup {nowhere.url} --target")


def test_without_sftp_the_upload_goes_through_cat(packages: Packages, tmp_path: Path) -> None:
    with (
        ssh_server(tmp_path, sftp=False) as server,
        local_device(server) as device,
        open_session(device.url, device.options) as (session, _),
    ):
        assert session._sftp() is None
        device.push(packages("1.0.0", seed=1))
        assert_serves(device, seed=1)


def test_root_with_blanks_and_shell_characters_works(server: SSHServer, packages: Packages) -> None:
    folder = Path("/tmp") / f"edge {os.getpid()} (a & b); *"
    try:
        with local_device(server, folder / "x") as device:
            device.push(packages("1.0.0", seed=1))
            assert_serves(device, seed=1)
            assert device.setup().status.serving
    finally:
        shutil.rmtree(folder)


# ---- the connection ------------------------------------------------------------------------------


def test_unknown_host_key_shows_its_fingerprint_and_a_command_that_adds_it(
    device: LocalDevice, server: SSHServer, packages: Packages, tmp_path: Path
) -> None:
    known = tmp_path / "known_hosts"
    config = server.client_config("unknown", known_hosts=known)
    with pytest.raises(ChannelError, match="not known") as caught:
        device.push(packages("1.0.0", seed=1), ChannelOptions(ssh_config=config))
    shown = subprocess.check_output(["ssh-keygen", "-lf", server.folder / "hostkey.pub"], text=True)
    fingerprint = shown.split()[1]
    assert fingerprint.startswith("SHA256:")
    assert f"ssh-ed25519 {fingerprint}" in caught.value.message
    command = caught.value.hint.partition("then: ")[2]
    assert command.endswith(str(known))
    subprocess.run(command, shell=True, check=True, stderr=subprocess.DEVNULL)
    device.push(packages("1.0.0", seed=1), ChannelOptions(ssh_config=config))


def test_changed_host_key_is_refused_and_both_fingerprints_are_shown(
    device: LocalDevice, server: SSHServer, packages: Packages, tmp_path: Path
) -> None:
    other = keygen(tmp_path / "other").with_suffix(".pub").read_text()
    known = server.known_hosts("changed", server.port, " ".join(other.split()[:2]))
    config = server.client_config("changed", known_hosts=known)
    with pytest.raises(ChannelError, match="CHANGED") as caught:
        device.push(packages("1.0.0", seed=1), ChannelOptions(ssh_config=config))
    assert len(set(re.findall(r"SHA256:\S+", caught.value.message))) == 2
    assert f"ssh-keygen -R '[127.0.0.1]:{server.port}' -f {known}" in caught.value.hint


def test_revoked_host_key_is_refused_though_it_is_known(
    device: LocalDevice, server: SSHServer, packages: Packages
) -> None:
    known = server.known_hosts("revoked", server.port)
    known.write_text(f"{known.read_text()}@revoked * {server.host_key}\n")
    config = server.client_config("revoked", known_hosts=known)
    with pytest.raises(ChannelError, match="@revoked"):
        device.push(packages("1.0.0", seed=1), ChannelOptions(ssh_config=config))


def test_hashed_known_hosts_is_understood(server: SSHServer, device: LocalDevice) -> None:
    known = server.known_hosts("hashed", server.port)
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", known], check=True, stderr=subprocess.DEVNULL)
    assert "127.0.0.1" not in known.read_text()
    config = server.client_config("hashed", known_hosts=known)
    assert replace_options(device, config).status().serving


def replace_options(device: LocalDevice, config: Path) -> LocalDevice:
    found = LocalDevice(device.server, device.root)
    found.options = ChannelOptions(ssh_config=config)
    return found


def test_key_that_is_not_authorized_is_one_clear_line(
    device: LocalDevice, server: SSHServer, tmp_path: Path
) -> None:
    config = server.client_config("stranger", identity=keygen(tmp_path / "stranger"))
    with pytest.raises(ChannelError, match="no key was accepted: 1 offered") as caught:
        replace_options(device, config).status()
    assert "ssh-copy-id" in caught.value.hint


def test_missing_and_unusable_keys_are_named(
    device: LocalDevice, server: SSHServer, tmp_path: Path
) -> None:
    (tmp_path / "rubbish").write_text("no key")
    for name, reason in (("missing", "none to offer"), ("rubbish", "not a private key")):
        config = server.client_config(name, identity=tmp_path / name)
        with pytest.raises(ChannelError, match=reason):
            replace_options(device, config).status()


@pytest.fixture
def ssh_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An ssh-agent with a key that has a passphrase on disk; returns the key's path."""
    key = keygen(tmp_path / "locked", "a passphrase")
    place = tmp_path / "askpass"
    place.write_text("#!/bin/sh\necho a passphrase\n")
    place.chmod(0o755)
    path = Path(f"/tmp/edge-agent-{os.getpid()}.sock")
    process = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL)
    try:
        wait_until(path.exists, 10, "ssh-agent listens")
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        env = {**os.environ, "SSH_ASKPASS": str(place), "SSH_ASKPASS_REQUIRE": "force"}
        subprocess.run(["ssh-add", "-q", key], check=True, env=env, stdin=subprocess.DEVNULL)
        yield key
    finally:
        process.terminate()
        process.wait(10)


def test_key_with_a_passphrase_works_through_ssh_agent_and_says_so_without(
    device: LocalDevice,
    server: SSHServer,
    ssh_agent: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    authorized = server.folder / "authorized_keys"
    before = authorized.read_text()
    config = server.client_config("locked", identity=ssh_agent)
    config.write_text(config.read_text().replace("IdentityAgent none", ""))
    try:
        authorized.write_text(before + ssh_agent.with_suffix(".pub").read_text())
        assert replace_options(device, config).status().serving
        monkeypatch.delenv("SSH_AUTH_SOCK")
        with pytest.raises(ChannelError, match="has a passphrase") as caught:
            replace_options(device, config).status()
        assert f"ssh-add {ssh_agent}" in caught.value.hint
    finally:
        authorized.write_text(before)


def test_identity_option_is_the_key_that_is_offered(
    device: LocalDevice, server: SSHServer, tmp_path: Path
) -> None:
    config = server.client_config("other", identity=keygen(tmp_path / "stranger"))
    found = replace_options(device, config)
    found.options = replace(found.options, identity=server.identity)
    assert found.status().serving


def test_through_a_jump_host_and_through_a_proxy_command(
    device: LocalDevice, server: SSHServer
) -> None:
    plain = server.client_config("plain")
    jump = plain.read_text().replace("Host device", "Host jump")
    config = server.client_config("jump", more=f"  ProxyJump jump\n{jump}")
    assert replace_options(device, config).status().serving
    command = f"  ProxyCommand ssh -F {plain} -W 127.0.0.1:{server.port} device\n"
    config = server.client_config("command", more=command)
    assert replace_options(device, config).status().serving


def test_refused_connection_unknown_name_and_silent_server_are_one_clear_line(
    device: LocalDevice, server: SSHServer
) -> None:
    def fails(port: int, host: str = "127.0.0.1") -> str:
        config = server.client_config("away", port=port)
        config.write_text(config.read_text().replace("HostName 127.0.0.1", f"HostName {host}"))
        found = replace_options(device, config)
        found.options = replace(found.options, connect_timeout=1)
        with pytest.raises(ChannelError) as caught:
            found.status()
        assert caught.value.hint
        assert "\n" not in caught.value.message
        return caught.value.message

    (closed,) = free_ports(1)
    assert "was refused" in fails(closed)
    assert "no address is known" in fails(22, "no-such-host.invalid")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert "no SSH server answers" in fails(silent.getsockname()[1])


def test_a_session_whose_connection_is_gone_closes_without_an_error_of_its_own(
    device: LocalDevice,
) -> None:
    def lose_it() -> None:
        with open_session(device.url, device.options) as (session, _):
            session.upload(io.BytesIO(b"whole"), 5, f"{device.root}/incoming/first")
            # Nothing can be sent any more, but the transport's thread has not noticed.
            vars(session._transport.packetizer)["_Packetizer__socket"] = socket.socket()
            session.upload(io.BytesIO(b"never"), 5, f"{device.root}/incoming/second")

    with pytest.raises(ChannelError, match="connection was lost"):
        lose_it()


def test_connection_cut_at_any_moment_leaves_the_old_version_and_the_next_push_works(
    device: LocalDevice, server: SSHServer, packages: Packages
) -> None:
    device.push(packages("1.0.0", seed=0))
    with cutter(server.port) as proxy:
        config = server.client_config("proxied", port=proxy.port)
        options = ChannelOptions(ssh_config=config)
        whole = device.push(packages("1.0.1", seed=1), options)  # to know how many bytes there are
        # Whoever has sent fewer bytes than the package has cannot have sent it all.
        total, upload = proxy.sent, whole.sent_bytes
        assert 16_384 < upload < total
        limits = [0, 1, 500, 2_000, 4_000, 8_000, upload // 2, upload - 1]
        limits += [(upload + total) // 2, total - 400, total - 100, total]
        for number, limit in enumerate(limits, start=2):
            package = packages(f"1.0.{number}", seed=number)
            proxy.sent, proxy.limit = 0, limit
            if limit < upload:
                with pytest.raises(ChannelError):
                    device.push(package, options)
                assert device.version() == f"1.0.{number - 1}", limit
                assert_serves(device, seed=number - 1)
            else:  # the agent may have it all, and only its answer be lost
                try:
                    device.push(package, options)
                except ChannelError:
                    assert device.version() in (f"1.0.{number - 1}", f"1.0.{number}")
            proxy.sent, proxy.limit = 0, None
            device.push(package, options)
            assert device.version() == f"1.0.{number}", limit
            assert_serves(device, seed=number)
            assert device.leftovers() == []
        assert proxy.cuts >= 8


def test_pushes_at_once_leave_one_of_them_whole(device: LocalDevice, packages: Packages) -> None:
    device.push(packages("1.0.0", seed=0))
    errors: list[Exception] = []

    def attempt(package: SignedPackage) -> None:
        try:
            device.push(package)
        except Exception as error:
            errors.append(error)

    both = [packages(f"1.0.{number}", seed=number) for number in (1, 2)]
    threads = [threading.Thread(target=attempt, args=(package,)) for package in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(errors) <= 1
    assert all(isinstance(error, EdgepackError) for error in errors)
    version = device.version()
    assert version in ("1.0.1", "1.0.2")
    assert_serves(device, seed=int(version[-1]))
    device.push(both[1])
    assert_serves(device, seed=2)
    assert device.leftovers() == []


# ---- disk ----------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(server: SSHServer) -> Iterator[LocalDevice]:
    """A device whose store is a file system of 8 MiB."""
    if os.geteuid() != 0:
        unavailable("mounting a small tmpfs needs root")
    folder = Path(f"/tmp/edge-disk-{os.getpid()}")
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "edgepack", folder], check=True)
    try:
        with local_device(server, folder / "store") as found:
            yield found
    finally:
        subprocess.run(["umount", folder], check=True)
        folder.rmdir()


def fill(device: LocalDevice, leave: int) -> Path:
    """Leave so many bytes free, or none."""
    stat = os.statvfs(device.root)
    filler = device.root.parent / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        left = stat.f_bavail * stat.f_frsize - leave
        while left > 0:
            left -= file.write(b"\0" * min(left, 4096))
    return filler


def test_full_disk_is_told_before_anything_is_sent(
    small_disk: LocalDevice, packages: Packages
) -> None:
    small_disk.push(packages("1.0.0", seed=1))
    filler = fill(small_disk, leave=1 << 20)
    options = replace(small_disk.options, progress=lambda done, total: pytest.fail("it was sent"))
    with pytest.raises(DeviceError) as caught:
        small_disk.push(packages("1.1.0", seed=2), options)
    assert caught.value.check == "disk"
    assert "1048576 bytes are free" in caught.value.message
    assert_serves(small_disk, seed=1)
    filler.unlink()
    small_disk.push(packages("1.1.0", seed=2))
    assert_serves(small_disk, seed=2)


@pytest.mark.parametrize("sftp", [True, False], ids=["sftp", "cat"])
def test_disk_that_fills_up_during_the_upload_is_a_device_error_with_the_bytes(
    small_disk: LocalDevice, packages: Packages, tmp_path: Path, sftp: bool
) -> None:
    small_disk.push(packages("1.0.0", seed=1))
    large = packages("1.1.0", seed=2, size=512)
    with ssh_server(tmp_path, sftp=sftp) as server:
        device = LocalDevice(server, small_disk.root)
        fillers: list[Path] = []

        def progress(done: int, total: int) -> None:
            if not fillers:
                fillers.append(fill(device, leave=0))

        with cutter(server.port) as proxy:
            proxy.on_bytes = lambda sent: progress(0, 0) if sent > 100_000 else None
            config = server.client_config("proxied", port=proxy.port)
            with pytest.raises(DeviceError, match=r"has no room: \d+ bytes are free, \d+ are"):
                device.push(large, ChannelOptions(ssh_config=config))
        assert device.version() == "1.0.0"
        assert_serves(device, seed=1)
        fillers[0].unlink()
        assert device.leftovers() == []
        device.push(large)
        assert device.version() == "1.1.0"

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import edgepack.package
from edgepack.artefacts import SignedPackage
from edgepack.channels import push
from edgepack.errors import ChannelError, DeviceError, PackageError, TrustError
from edgepack.trust import new_key
from tests.integration.machines import models, sshd
from tests.integration.machines.local_device import LocalDevice, local_device
from tests.integration.machines.models import compile_linear, signed
from tests.integration.machines.ports import free_ports
from tests.integration.machines.sshd import ssh_server
from tests.integration.machines.web import web_server

pytestmark = pytest.mark.needs(*sshd.PROGRAMS)
X = np.linspace(-1, 1, models.SIZE, dtype=np.float32)[None]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SignedPackage]:
    """1.0.0 and 1.1.0 of ``linear``, made with seeds 1 and 2, for this machine and a Raspberry."""
    folder = tmp_path_factory.mktemp("packages")
    return {
        version: signed(compile_linear(folder, version, "raspberrypi4", "host", seed=seed))
        for seed, version in enumerate(("1.0.0", "1.1.0"), start=1)
    }


@pytest.fixture
def device(tmp_path: Path) -> Iterator[LocalDevice]:
    with ssh_server(tmp_path) as server, local_device(server) as found:
        yield found


@pytest.fixture
def stick(tmp_path: Path, packages: dict[str, SignedPackage]) -> Path:
    """A directory that offers 1.0.0."""
    folder = tmp_path / "stick"
    publish(packages["1.0.0"], folder)
    return folder


@pytest.fixture(params=["directory", "web root"])
def source(request: pytest.FixtureRequest, stick: Path) -> Iterator[str]:
    """Where the device pulls from: ``stick``, or a web server that has it as its root."""
    if request.param == "directory":
        yield str(stick)
    else:
        with web_server(stick) as url:
            yield url


def publish(package: SignedPackage, folder: Path) -> None:
    push(package, f"dir:{folder}", contents=edgepack.package)


def assert_serves(device: LocalDevice, seed: int) -> None:
    expected = np.maximum(X @ models.weights(seed), 0)
    np.testing.assert_allclose(device.infer(X), expected, rtol=1e-4, atol=1e-5)


def test_device_pulls_installs_and_serves_what_was_published(
    device: LocalDevice, stick: Path, source: str, packages: dict[str, SignedPackage]
) -> None:
    code, answer = device.agent("pull", source, "linear")
    assert (code, answer["ok"]) == (0, True), answer
    assert [(m["model"], m["version"], m["changed"]) for m in answer["models"]] == [
        ("linear", "1.0.0", True)
    ]
    assert_serves(device, seed=1)
    publish(packages["1.1.0"], stick)
    code, answer = device.agent("pull", source)  # what is installed, by itself
    assert [(m["version"], m["previous"]) for m in answer["models"]] == [("1.1.0", "1.0.0")]
    assert_serves(device, seed=2)
    code, answer = device.agent("pull", source)
    assert [m["changed"] for m in answer["models"]] == [False]


def test_directory_offers_all_its_models_to_a_device_that_has_none(
    device: LocalDevice, stick: Path
) -> None:
    code, answer = device.agent("pull", str(stick))
    assert code == 0, answer
    assert [m["model"] for m in answer["models"]] == ["linear"]


def test_pushing_and_pulling_are_one_store(
    device: LocalDevice, stick: Path, packages: dict[str, SignedPackage]
) -> None:
    device.push(packages["1.1.0"])
    code, answer = device.agent("pull", str(stick), "linear")
    assert (code, answer["check"]) == (TrustError.exit_code, "version")
    assert_serves(device, seed=2)


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _weights(stick: Path, package: SignedPackage) -> Path:
    host = next(t for t in package.package.targets if t.name == "host")
    return stick / "blobs/sha256" / host.weights.removeprefix("sha256:")


def _resign(stick: Path, package: SignedPackage) -> None:
    """The same, signed by somebody whom the device does not know."""
    from dataclasses import replace

    from edgepack.trust import sign

    bare = replace(package.package, envelope=None)
    (stick / "models/linear.json").write_bytes(sign(bare, new_key("ecdsa-p256")))


Tamper = Callable[[Path, SignedPackage], object]
TAMPERINGS: dict[str, tuple[Tamper, set[int]]] = {
    "flipped pointer": (
        lambda stick, package: _flip(stick / "models/linear.json"),
        {TrustError.exit_code, PackageError.exit_code},
    ),
    "flipped weights": (
        lambda stick, package: _flip(_weights(stick, package)),
        {TrustError.exit_code},
    ),
    "cut weights": (
        lambda stick, package: _weights(stick, package).write_bytes(b"short"),
        {TrustError.exit_code, ChannelError.exit_code},
    ),
    "missing weights": (
        lambda stick, package: _weights(stick, package).unlink(),
        {PackageError.exit_code, ChannelError.exit_code},
    ),
    "another key": (_resign, {TrustError.exit_code}),
    "no pointer": (
        lambda stick, package: (stick / "models/linear.json").unlink(),
        {ChannelError.exit_code},
    ),
}


@pytest.mark.parametrize("name", TAMPERINGS)
def test_tampered_source_is_refused_and_the_old_version_serves(
    device: LocalDevice,
    stick: Path,
    source: str,
    packages: dict[str, SignedPackage],
    name: str,
) -> None:
    assert device.agent("pull", source, "linear")[0] == 0
    publish(packages["1.1.0"], stick)
    tamper, codes = TAMPERINGS[name]
    tamper(stick, packages["1.1.0"])
    code, answer = device.agent("pull", source, "linear")
    assert code in codes, answer
    assert answer["ok"] is False
    assert answer["reason"]
    assert device.version() == "1.0.0"
    assert_serves(device, seed=1)
    assert device.leftovers() == []
    shutil.rmtree(stick)
    stick.mkdir()
    publish(packages["1.1.0"], stick)
    assert device.agent("pull", source, "linear")[0] == 0
    assert_serves(device, seed=2)


def test_unreachable_source_is_a_channel_failure(device: LocalDevice, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    for place in (f"http://127.0.0.1:{port}", str(tmp_path / "none")):
        code, answer = device.agent("pull", place, "linear")
        assert code == ChannelError.exit_code, answer


def test_model_without_the_devices_target_is_passed_over_unless_it_is_asked_for(
    device: LocalDevice, tmp_path: Path
) -> None:
    """One stick may serve many kinds of device."""
    publish(signed(compile_linear(tmp_path, "1.0.0", "raspberrypi4")), tmp_path / "stick")
    assert device.agent("pull", str(tmp_path / "stick")) == (0, {"ok": True, "models": []})
    code, answer = device.agent("pull", str(tmp_path / "stick"), "linear")
    assert (code, answer["check"]) == (DeviceError.exit_code, "target")

"""The agent and a fake worker, built once for this machine, and a device that they run on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgepack.targets import load_target
from edgepack.toolchain import build_agent
from edgepack.trust import PrivateKey, new_key
from tests.native import fake_device
from tests.native.device_store import TARGET, Device, fake_worker


@pytest.fixture(scope="session")
def agent() -> Path:
    return build_agent(load_target(TARGET))


@pytest.fixture(scope="session")
def worker() -> bytes:
    """The bytes of fake_worker.c's executable for this machine."""
    return fake_worker(load_target(TARGET).zig_static_triple)


@pytest.fixture(scope="session", params=["ecdsa-p256", "ed25519"])
def any_key(request: pytest.FixtureRequest) -> PrivateKey:
    """One key of each kind, in turn."""
    return new_key(request.param)


@pytest.fixture(scope="session")
def key() -> PrivateKey:
    return new_key()


@pytest.fixture
def device(tmp_path: Path, machine: fake_device.Machine, key: PrivateKey) -> Device:
    """Set up as a machine, trusting ``key``."""
    device = Device(root=tmp_path / "device", agent=machine.agent(), machine=machine)
    device.set_up(key)
    return device


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """``@pytest.mark.also_on("aarch64")`` repeats tests of ``device``, ``blank``, ``idle`` and ``served``
    there, but for those with ``only_here``.
    """
    if "machine" not in metafunc.fixturenames:
        return
    names: list[str] = []
    if metafunc.definition.get_closest_marker("only_here") is None:
        names = [name for mark in metafunc.definition.iter_markers("also_on") for name in mark.args]
    here = pytest.param(fake_device.host_machine(), id="here")
    others = [fake_device.emulated_machine(name) for name in fake_device.EMULATED if name in names]
    emulated = [
        pytest.param(other, id=other.name, marks=pytest.mark.needs(other.emulator))
        for other in others
    ]
    metafunc.parametrize("machine", [here, *emulated], indirect=True)


@pytest.fixture
def machine(request: pytest.FixtureRequest) -> fake_device.Machine:
    """What the agents and workers of ``device`` and of the three fixtures below run on."""
    machine: fake_device.Machine = getattr(request, "param", fake_device.host_machine())
    return machine


@pytest.fixture
def blank(machine: fake_device.Machine) -> Iterator[fake_device.Device]:
    """A store without a model, which nobody serves yet."""
    with fake_device.temporary_device(machine.agent(), machine) as device:
        yield device


@pytest.fixture
def idle(blank: fake_device.Device) -> fake_device.Device:
    """A store with the fake model ``m`` in it, which nobody serves yet."""
    blank.install("m", {"1.0.0": fake_device.FakeModel()})
    return blank


@pytest.fixture
def served(idle: fake_device.Device) -> Iterator[fake_device.Device]:
    """The fake model ``m``, served."""
    with idle.serving():
        yield idle

"""The agent and a fake worker, built once for this machine, and a device that they run on."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgepack.targets import load_target
from edgepack.toolchain import build_agent
from edgepack.trust import PrivateKey, new_key
from tests.native import fake_device
from tests.native.device_store import TARGET, Device


@pytest.fixture(scope="session")
def agent() -> Path:
    return build_agent(load_target(TARGET))


@pytest.fixture(scope="session")
def worker(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of fake_worker.c's executable."""
    out = tmp_path_factory.mktemp("worker") / "worker"
    triple = load_target(TARGET).zig_static_triple
    source = Path(__file__).with_name("fake_worker.c")
    command = [sys.executable, "-m", "ziglang", "cc", "-target", triple, "-static", "-s", "-Os"]
    subprocess.run([*command, str(source), "-o", str(out)], check=True)
    return out.read_bytes()


@pytest.fixture(scope="session", params=["ecdsa-p256", "ed25519"])
def any_key(request: pytest.FixtureRequest) -> PrivateKey:
    """One key of each kind, in turn."""
    return new_key(request.param)


@pytest.fixture(scope="session")
def key() -> PrivateKey:
    return new_key()


@pytest.fixture
def device(tmp_path: Path, agent: Path, key: PrivateKey) -> Device:
    """Set up as this machine, trusting ``key``."""
    device = Device(root=tmp_path / "device", agent=agent)
    device.set_up(key)
    return device


@pytest.fixture
def idle(agent: Path) -> Iterator[fake_device.Device]:
    """A store with the fake model ``m`` in it, which nobody serves yet."""
    # Not tmp_path: a Unix socket's path has 107 bytes at most.
    root = Path(tempfile.mkdtemp(prefix="edgepack-"))
    (root / "run").mkdir()
    device = fake_device.Device(root=root, agent=agent)
    device.install("m", {"1.0.0": fake_device.FakeModel()})
    yield device
    shutil.rmtree(root)

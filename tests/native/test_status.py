from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from edgepack.channels.device_status import DeviceStatus
from edgepack.cli import text
from edgepack.trust import PrivateKey, new_key
from tests.native import fake_device
from tests.native.device_store import Device, publish
from tests.native.fake_device import FakeModel, request

pytestmark = pytest.mark.also_on("aarch64")


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def test_the_last_install_is_told_whether_it_succeeded_or_not(
    tmp_path: Path, device: Device, key: PrivateKey
) -> None:
    assert device.installed("status")["last_install"] is None
    first = device.write(tmp_path / "1.epk", key, version="1.0.0")
    device.installed("install", first.path)
    told = device.installed("status")["last_install"]
    assert (told["sequence"], told["ok"], told["check"], told["reason"]) == (1, True, None, None)
    assert (told["model"], told["version"]) == ("demo", "1.0.0")
    assert f"sha256:{told['digest']}" == first.digest
    assert (told["boot"], told["boot_ms"] > 0) == (boot_id(), True)

    wrong = device.write(tmp_path / "2.epk", key, version="2.0.0", weights="wrong")
    refused = device.run("install", wrong.path)
    told = device.installed("status")["last_install"]
    assert (told["sequence"], told["ok"], told["version"]) == (2, False, "2.0.0")
    assert (told["check"], told["reason"]) == ("golden", refused.json["reason"])

    foreign = device.write(tmp_path / "3.epk", new_key(), version="3.0.0")
    device.run("install", foreign.path)
    told = device.installed("status")["last_install"]
    assert (told["sequence"], told["check"], told["version"]) == (3, "key", None)
    (tmp_path / "4.epk").write_bytes(b"no package")
    device.run("install", tmp_path / "4.epk")
    told = device.installed("status")["last_install"]
    assert (told["sequence"], told["check"], told["digest"]) == (4, "package", None)


def test_a_pull_is_told_once_it_tries_something(
    tmp_path: Path, device: Device, key: PrivateKey
) -> None:
    package = device.write(tmp_path / "1.epk", key, version="1.0.0")
    place = publish(package, tmp_path / "place")
    for _ in range(3):
        device.installed("pull", place)
    told = device.installed("status")["last_install"]
    assert (told["sequence"], told["ok"], told["model"]) == (1, True, "demo")
    (place / "models" / "demo.json").write_bytes(b"{}")
    device.run("pull", place)
    told = device.installed("status")["last_install"]
    assert (told["sequence"], told["ok"], told["check"]) == (2, False, "signature")


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"format":1}', b"\0" * 900, b"{}" * 9000])
def test_a_record_that_is_not_whole_is_none_and_is_replaced(
    tmp_path: Path, device: Device, key: PrivateKey, damage: bytes
) -> None:
    (device.root / "last-install.json").write_bytes(damage)
    assert device.installed("status")["last_install"] is None
    package = device.write(tmp_path / "1.epk", key, version="1.0.0")
    device.installed("install", package.path)
    assert device.installed("status")["last_install"]["sequence"] == 1


def test_an_install_succeeds_where_its_record_cannot_be_written(
    tmp_path: Path, device: Device, key: PrivateKey
) -> None:
    (device.root / "last-install.json.tmp").mkdir()
    package = device.write(tmp_path / "1.epk", key, version="1.0.0")
    assert device.installed("install", package.path)["ok"] is True
    assert device.installed("status")["last_install"] is None


def command_status(device: fake_device.Device) -> dict[str, Any]:
    done = subprocess.run(device.command("status"), capture_output=True, text=True, check=True)
    status: dict[str, Any] = json.loads(done.stdout)
    return status


def without_time(status: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in status.items() if k not in ("time", "uptime", "disk_free")}


@pytest.mark.also_on("armv7", "riscv64")
def test_the_server_and_the_command_tell_the_same(idle: fake_device.Device) -> None:
    before = command_status(idle)
    assert (before["serving"], before["models"][0]["served"]) == (False, None)
    with idle.serving():
        assert idle.ask("POST", "/v2/models/m/infer", request([-1002, 0, 0, 0]))[0] == 500
        assert idle.ask("POST", "/v2/models/m/infer", request([1, 1, 1, 1]))[0] == 200
        code, served = idle.ask("GET", "/v2/status")
        assert code == 200
        assert without_time(served) == without_time(command_status(idle))
        assert idle.ask("POST", "/v2/status", {})[0] == 405
    assert served["serving"] is True
    assert served["machine"].startswith(idle.machine.target.arch)  # armv7l, of arm
    assert served["boot"] == boot_id()
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    assert abs(served["uptime"] - uptime) < 30
    blobs = sum(path.stat().st_size for path in (idle.root / "blobs" / "sha256").iterdir())
    assert served["disk_used"] == blobs
    assert served["models"][0]["served"] == {
        "version": "1.0.0",
        "state": "READY",
        "reason": "",
        "deaths": 1,
        "restarts": 1,
        "psi": None,
    }


def test_models_that_do_not_start_are_told_with_the_reason(idle: fake_device.Device) -> None:
    idle.install("broken", {"1.0.0": FakeModel(tag=3)})
    blob = idle.current("broken", "worker")
    blob.chmod(0o755)
    blob.write_bytes(b"nothing")
    with idle.serving():
        status = command_status(idle)
    broken = status["models"][0]["served"]
    assert (broken["version"], broken["state"]) == (None, "UNAVAILABLE")
    assert "blob" in broken["reason"]
    read = DeviceStatus.from_dict(status).to_dict()
    assert {key: read[key] for key in status if key != "target"} == {
        key: value for key, value in status.items() if key != "target"
    }
    assert re.search(r"broken .*unavailable: .*blob", text.device_status(read))
    assert re.search(r"m  .*1\.0\.0\n?", text.device_status(read))


def test_a_status_of_many_models_is_whole(idle: fake_device.Device) -> None:
    for number in range(90):
        idle.install(f"model-{number}", {"1.0.0": FakeModel()})
    with idle.serving():
        assert len(command_status(idle)["models"]) == 91

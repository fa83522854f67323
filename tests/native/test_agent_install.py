from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from edgepack.package import write_thin
from edgepack.trust import PrivateKey, new_key
from tests.native.device_store import Device
from tests.native.fake_device import Machine

pytestmark = pytest.mark.also_on("aarch64")


def test_a_signed_package_is_installed_with_either_kind_of_key(
    tmp_path: Path, machine: Machine, any_key: PrivateKey
) -> None:
    device = Device(root=tmp_path / "device", agent=machine.agent(), machine=machine)
    device.set_up(any_key)
    package = device.write(tmp_path / "a.epk", any_key, version="1.0.0")
    assert device.installed("install", package.path) == {
        "ok": True,
        "model": "demo",
        "version": "1.0.0",
        "previous": None,
        "changed": True,
    }
    device.assert_consistent()


def test_the_status_says_what_is_there(tmp_path: Path, device: Device, key: PrivateKey) -> None:
    package = device.write(tmp_path / "a.epk", key, version="1.0.0")
    device.installed("install", package.path)
    status = device.installed("status")
    manifest = package.targets[0].manifest.removeprefix("sha256:")
    assert status["models"] == [
        {
            "name": "demo",
            "current": {"version": "1.0.0", "manifest": manifest},
            "previous": None,
            "floor": "1.0.0",
            "served": None,
        }
    ]
    assert status["keys"] == [key.public_key.key_id]
    assert status["target"] == device.target
    assert status["serving"] is False
    assert status["disk_free"] > 0


def test_the_same_package_again_changes_nothing(
    tmp_path: Path, device: Device, key: PrivateKey
) -> None:
    package = device.write(tmp_path / "a.epk", key, version="1.0.0")
    device.installed("install", package.path)
    before = device.contents()
    assert device.installed("install", package.path)["changed"] is False
    assert device.contents() == before


def test_two_versions_are_kept_and_the_third_last_goes(
    tmp_path: Path, device: Device, key: PrivateKey
) -> None:
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        device.write(tmp_path / f"{version}.epk", key, version=version)
        device.installed("install", tmp_path / f"{version}.epk")
        device.assert_consistent()
    state = json.loads((device.root / "models/demo/state.json").read_text())
    assert state["current"]["version"] == "1.2.0"
    assert state["previous"]["version"] == "1.1.0"
    assert state["floor"] == "1.2.0"
    # One worker for both; of each version a manifest, weights, metadata and an envelope; golden.bin
    # is the same one.
    assert len(device.installed("blobs")["blobs"]) == 2 + 2 * 4


def test_only_the_worker_is_executable_and_nothing_is_writable(
    tmp_path: Path, device: Device, key: PrivateKey
) -> None:
    package = device.write(tmp_path / "a.epk", key, version="1.0.0")
    device.installed("install", package.path)
    name = package.targets[0].worker.removeprefix("sha256:")
    for path in (device.root / "blobs/sha256").iterdir():
        expected = 0o555 if path.name == name else 0o444
        assert stat.S_IMODE(path.stat().st_mode) == expected


def test_rolling_back_swaps_and_the_floor_stays(
    tmp_path: Path, device: Device, key: PrivateKey
) -> None:
    for version in ("1.0.0", "2.0.0"):
        device.write(tmp_path / f"{version}.epk", key, version=version)
        device.installed("install", tmp_path / f"{version}.epk")
    answer = device.installed("rollback")
    assert (answer["version"], answer["previous"], answer["changed"]) == ("1.0.0", "2.0.0", True)
    assert device.installed("status")["models"][0]["floor"] == "2.0.0"
    device.write(tmp_path / "between.epk", key, version="1.5.0")
    assert device.run("install", tmp_path / "between.epk").refused == (8, "version")
    # What was rolled back from may come again as it was, but not with other contents.
    device.write(tmp_path / "other.epk", key, version="2.0.0", weights="good, but other")
    assert device.run("install", tmp_path / "other.epk").refused == (8, "version")
    assert device.installed("install", tmp_path / "2.0.0.epk")["version"] == "2.0.0"
    assert device.installed("rollback", "demo")["version"] == "1.0.0"
    device.assert_consistent()


def test_there_is_no_rolling_back_from_the_first_version(
    tmp_path: Path, device: Device, key: PrivateKey
) -> None:
    assert device.run("rollback").refused == (10, "state")
    device.write(tmp_path / "a.epk", key, version="1.0.0")
    device.installed("install", tmp_path / "a.epk")
    assert device.run("rollback").refused == (10, "state")
    assert device.run("rollback", "other").refused == (10, "state")
    assert device.current() == "1.0.0"


def test_a_thin_package_is_completed_from_the_store(
    tmp_path: Path, device: Device, key: PrivateKey
) -> None:
    device.write(tmp_path / "1.epk", key, version="1.0.0")
    device.installed("install", tmp_path / "1.epk")
    package = device.write(tmp_path / "2.epk", key, version="2.0.0")
    present = device.installed("blobs")["blobs"]
    thin = write_thin(package, device.target, present, tmp_path / "thin.epk")
    assert thin.skipped_blobs >= 2  # the worker and golden.bin
    assert thin.path.stat().st_size <= package.path.stat().st_size - thin.skipped_bytes
    assert device.installed("install", thin.path)["version"] == "2.0.0"
    device.assert_consistent()


def test_a_thin_package_that_relies_on_what_is_not_there_is_refused(
    tmp_path: Path, device: Device, key: PrivateKey
) -> None:
    package = device.write(tmp_path / "a.epk", key, version="1.0.0")
    present = [package.targets[0].worker]
    thin = write_thin(package, device.target, present, tmp_path / "thin.epk")
    assert device.run("install", thin.path).refused == (7, "package")
    assert device.contents() == {}


def test_a_damaged_blob_in_the_store_is_found_and_repaired(
    tmp_path: Path, device: Device, key: PrivateKey
) -> None:
    package = device.write(tmp_path / "a.epk", key, version="1.0.0")
    device.installed("install", package.path)
    weights = package.targets[0].weights.removeprefix("sha256:")
    path = device.root / "blobs/sha256" / weights
    for damage in (b"", b"good 1.0.1", b"good 1.0.0 and more"):
        path.chmod(0o644)
        path.write_bytes(damage)
        present = [digits for digits in device.installed("blobs")["blobs"] if digits != weights]
        thin = write_thin(package, device.target, [*present, weights], tmp_path / "thin.epk")
        assert device.run("install", thin.path).refused == (7, "package")
        assert weights not in device.installed("blobs")["blobs"]  # so that the next push sends it
        assert device.installed("install", package.path)["changed"] is False
        device.assert_consistent()


def test_several_signatures_need_one_trusted_key(
    tmp_path: Path, device: Device, key: PrivateKey
) -> None:
    device.write(tmp_path / "a.epk", new_key("ed25519"), key, new_key(), version="1.0.0")
    assert device.installed("install", tmp_path / "a.epk")["changed"] is True


@pytest.mark.parametrize(
    "arguments",
    [[], ["fly"], ["install"], ["install", "a", "b"], ["rollback", "../x"], ["--root"], ["pull"]],
)
def test_a_wrong_command_line_is_a_usage_error(device: Device, arguments: list[str]) -> None:
    assert device.run(*arguments).refused == (2, "usage")


def test_a_device_that_was_not_set_up_says_so(tmp_path: Path, machine: Machine) -> None:
    device = Device(root=tmp_path / "new", agent=machine.agent(), machine=machine)
    assert device.installed("status")["target"] is None
    assert device.run("install", tmp_path / "a.epk").refused == (10, "state")

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgepack.artefacts import Package
from edgepack.errors import PackageError
from edgepack.package import attach_envelope, read_package, write_thin
from tests.package_samples import unpack, write

PARTS = ("manifest", "config", "worker", "weights", "metadata", "golden")


@pytest.fixture
def package(tmp_path: Path) -> Package:
    return attach_envelope(write(tmp_path / "a.epk", "raspberrypi4", "x86-64-v3"), b"envelope")


def blobs(path: Path) -> set[str]:
    return {name.removeprefix("blobs/sha256/") for name in list(unpack(path))[2:]}


def digests(package: Package, target: int) -> dict[str, str]:
    return {part: getattr(package.targets[target], part)[7:] for part in PARTS}


def documents(package: Package) -> set[str]:
    """The index, the signature's manifest, its empty config and the envelope."""
    return blobs(package.path) - {h for t in (0, 1) for h in digests(package, t).values()}


def test_a_device_with_nothing_gets_everything_of_its_target_only(
    package: Package, tmp_path: Path
) -> None:
    thin = write_thin(package, "raspberrypi4", set(), tmp_path / "thin.epk")
    own = set(digests(package, 0).values())
    assert len(documents(package)) == 4
    assert blobs(thin.path) == documents(package) | own
    assert (thin.target, thin.sent_blobs, thin.skipped_blobs) == ("raspberrypi4", 10, 0)
    sizes = [len(data) for data in list(unpack(thin.path).values())[2:]]
    assert (thin.sent_bytes, thin.skipped_bytes) == (sum(sizes), 0)


def test_what_the_device_holds_stays_here(package: Package, tmp_path: Path) -> None:
    own = digests(package, 0)
    present = {own["weights"], "sha256:" + own["golden"], "f" * 64}
    thin = write_thin(package, "raspberrypi4", present, tmp_path / "thin.epk")
    assert blobs(thin.path) == documents(package) | set(own.values()) - {
        own["weights"],
        own["golden"],
    }
    target = package.targets[0]
    assert (thin.sent_blobs, thin.skipped_blobs) == (8, 2)
    assert thin.skipped_bytes == target.sizes[target.weights] + target.sizes[target.golden]


def test_the_documents_to_verify_always_travel(package: Package, tmp_path: Path) -> None:
    thin = write_thin(package, "raspberrypi4", blobs(package.path), tmp_path / "thin.epk")
    assert blobs(thin.path) == documents(package) | {digests(package, 0)["manifest"]}
    assert thin.skipped_blobs == 5
    entries = unpack(thin.path)
    assert entries["index.json"] == unpack(package.path)["index.json"]
    root = json.loads(entries["index.json"])
    assert root["manifests"][0]["digest"][7:] in blobs(thin.path)


def test_a_thin_package_is_no_package_here(package: Package, tmp_path: Path) -> None:
    thin = write_thin(package, "raspberrypi4", set(), tmp_path / "thin.epk")
    with pytest.raises(PackageError, match="target x86-64-v3, manifest is missing"):
        read_package(thin.path)


def test_an_unsigned_package_can_be_thinned_too(tmp_path: Path) -> None:
    package = write(tmp_path / "a.epk", "raspberrypi4", "x86-64-v3")
    thin = write_thin(package, "x86-64-v3", set(), tmp_path / "thin.epk")
    assert thin.sent_blobs == 7


def test_a_single_target_with_nothing_held_is_the_package_itself(tmp_path: Path) -> None:
    package = write(tmp_path / "a.epk")
    thin = write_thin(package, "raspberrypi4", set(), tmp_path / "thin.epk")
    assert thin.path.read_bytes() == package.path.read_bytes()


def test_a_target_that_is_not_in_it_is_an_error_that_lists_those_that_are(
    package: Package, tmp_path: Path
) -> None:
    with pytest.raises(PackageError, match=r"only for raspberrypi4, x86-64-v3") as caught:
        write_thin(package, "host", set(), tmp_path / "thin.epk")
    assert "--target host" in caught.value.hint

from __future__ import annotations

import errno
import hashlib
import multiprocessing
import os
from pathlib import Path
from typing import Any, BinaryIO

import pytest

import edgepack.package
from edgepack.artefacts import Package, PushResult, SignedPackage
from edgepack.channels import ChannelOptions, directory, push
from edgepack.channels.channel import package_blobs
from edgepack.channels.directory import directory_of
from edgepack.errors import ChannelError, ConfigError, TrustError
from edgepack.trust import PrivateKey, new_key, verify
from tests import package_samples

KEY: PrivateKey = new_key("ecdsa-p256")


def signed(path: Path, version: str = "1.2.0", **changes: Any) -> SignedPackage:
    targets = ("raspberrypi4", "x86-64-v3")
    package = package_samples.write(path, *targets, version=version, **changes)
    return verify(package_samples.signed(package, KEY), [])


def publish(package: SignedPackage, root: Path) -> PushResult:
    return push(package, f"dir:{root}", contents=edgepack.package)


def files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_layout_is_blobs_by_digest_and_the_envelope_as_pointer(tmp_path: Path) -> None:
    package = signed(tmp_path / "a.epk")
    result = publish(package, tmp_path / "out")
    there = files(tmp_path / "out")
    assert there.pop("models/demo.json") == package.package.envelope
    assert set(there) == {f"blobs/sha256/{digest[7:]}" for digest in package_blobs(package.package)}
    for name, content in there.items():
        assert name.endswith(hashlib.sha256(content).hexdigest())
    assert (result.sent_blobs, result.skipped_blobs) == (len(there), 0)
    assert result.sent_bytes == sum(map(len, there.values()))


def test_published_files_can_be_read_by_a_web_server(tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        publish(signed(tmp_path / "a.epk"), tmp_path / "out")
    finally:
        os.umask(old)
    modes = {p.stat().st_mode & 0o777 for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert modes == {0o644}


def test_second_push_of_the_same_changes_nothing(tmp_path: Path) -> None:
    package = signed(tmp_path / "a.epk")
    publish(package, tmp_path / "out")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*") if p.is_file()}
    again = publish(package, tmp_path / "out")
    assert again.sent_blobs == 0
    assert again.detail["changed"] is False
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*") if p.is_file()} == before


def test_new_version_sends_only_what_is_new(tmp_path: Path) -> None:
    publish(signed(tmp_path / "a.epk"), tmp_path / "out")
    newer = signed(tmp_path / "b.epk", version="1.3.0")
    result = publish(newer, tmp_path / "out")
    shared = {newer.package.targets[0].weights, newer.package.targets[0].golden}
    shared |= {target.worker for target in newer.package.targets}
    assert result.skipped_blobs == len(shared)
    assert (tmp_path / "out/models/demo.json").read_bytes() == newer.package.envelope


@pytest.mark.parametrize(("version", "weights"), [("1.1.9", b"old"), ("1.2.0", b"other")])
def test_lower_version_and_other_contents_of_the_same_version_are_refused(
    tmp_path: Path, version: str, weights: bytes
) -> None:
    publish(signed(tmp_path / "a.epk"), tmp_path / "out")
    before = files(tmp_path / "out")
    with pytest.raises(TrustError) as caught:
        publish(signed(tmp_path / "b.epk", version=version, weights=weights), tmp_path / "out")
    assert caught.value.check == "version"
    assert files(tmp_path / "out") == before


def test_another_signature_on_the_same_package_replaces_the_pointer(tmp_path: Path) -> None:
    package = signed(tmp_path / "a.epk")
    publish(package, tmp_path / "out")
    other = package_samples.signed(package.package, new_key("ed25519"))
    result = publish(verify(other, []), tmp_path / "out")
    assert result.sent_blobs == 0
    assert (tmp_path / "out/models/demo.json").read_bytes() == other.envelope


@pytest.mark.parametrize("damage", ["shorter", "flipped"])
def test_damaged_blob_is_written_again(tmp_path: Path, damage: str) -> None:
    package = signed(tmp_path / "a.epk")
    publish(package, tmp_path / "out")
    blob = tmp_path / "out/blobs/sha256" / package.package.targets[0].weights[7:]
    whole = blob.read_bytes()
    blob.write_bytes(whole[:-1] if damage == "shorter" else whole[:-1] + b"\0")
    assert publish(package, tmp_path / "out").sent_blobs == 1
    assert blob.read_bytes() == whole


@pytest.mark.parametrize("rubbish", [b"", b"{}", b"[]", b'{"payload":"!"}', b'{"payload":"e30="}'])
def test_pointer_that_is_none_is_not_overwritten(tmp_path: Path, rubbish: bytes) -> None:
    (tmp_path / "out/models").mkdir(parents=True)
    (tmp_path / "out/models/demo.json").write_bytes(rubbish)
    with pytest.raises(ChannelError, match="not a signed pointer"):
        publish(signed(tmp_path / "a.epk"), tmp_path / "out")
    assert (tmp_path / "out/models/demo.json").read_bytes() == rubbish


class FailsAtBlob:
    """Package contents whose n-th blob cannot be read on: a stick that was pulled out."""

    def __init__(self, number: int) -> None:
        self.left = number

    def open_blob(self, package: Package, digest: str) -> BinaryIO:
        if self.left == 0:
            raise OSError(errno.EIO, "Input/output error")
        self.left -= 1
        return edgepack.package.open_blob(package, digest)

    write_thin = staticmethod(edgepack.package.write_thin)


def test_interrupted_push_leaves_the_old_pointer_and_the_next_one_completes(
    tmp_path: Path,
) -> None:
    old = signed(tmp_path / "a.epk")
    publish(old, tmp_path / "out")
    newer = signed(tmp_path / "b.epk", version="2.0.0", weights=b"other", worker=b"\x7fELF new")
    count = len(package_blobs(newer.package)) - 1  # the golden vectors are there already
    for _ in range(count - 1):  # each one gets a blob further
        with pytest.raises(ChannelError):
            directory.push(
                newer,
                f"dir:{tmp_path / 'out'}",
                contents=FailsAtBlob(1),
                options=ChannelOptions(),
            )
        assert (tmp_path / "out/models/demo.json").read_bytes() == old.package.envelope
    leftover = tmp_path / "out/blobs/sha256/.x.1.part"
    leftover.write_bytes(b"of a push that was killed")
    publish(newer, tmp_path / "out")
    assert (tmp_path / "out/models/demo.json").read_bytes() == newer.package.envelope
    assert not list((tmp_path / "out").rglob("*.part"))


def test_not_writable_is_a_channel_error(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        root = Path("/sys/edgepack")  # nobody may make a directory there, root neither
    else:
        root = tmp_path / "locked" / "out"
        root.parent.mkdir(mode=0o555)
    with pytest.raises(ChannelError) as caught:
        publish(signed(tmp_path / "a.epk"), root)
    assert str(root) in caught.value.message


def test_file_in_the_place_of_the_directory_is_a_channel_error(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"")
    for root in (tmp_path / "out", tmp_path / "out/below"):
        with pytest.raises(ChannelError, match="is not a directory"):
            publish(signed(tmp_path / "a.epk"), root)


def test_missing_parent_is_a_channel_error_with_the_command(tmp_path: Path) -> None:
    with pytest.raises(ChannelError) as caught:
        publish(signed(tmp_path / "a.epk"), tmp_path / "no" / "out")
    assert caught.value.hint == f"mkdir -p {tmp_path / 'no'}"


def _push_in_child(path: Path, root: Path) -> None:
    package = verify(edgepack.package.read_package(path), [])
    try:
        publish(package, root)
    except TrustError as error:
        raise SystemExit(error.exit_code) from None


def test_pushes_at_once_end_with_the_highest_version(tmp_path: Path) -> None:
    versions = [f"1.{minor}.0" for minor in range(6)]
    for version in versions:
        signed(tmp_path / f"{version}.epk", version=version, weights=version.encode())
    context = multiprocessing.get_context("spawn")
    children = [
        context.Process(target=_push_in_child, args=(tmp_path / f"{v}.epk", tmp_path / "out"))
        for v in versions
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert {child.exitcode for child in children} <= {0, TrustError.exit_code}
    highest = edgepack.package.read_package(tmp_path / "1.5.0.epk")
    assert (tmp_path / "out/models/demo.json").read_bytes() == highest.envelope


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("dir:/srv/models", "/srv/models"),
        ("dir:/srv/a%20b", "/srv/a%20b"),
        ("file:///srv/a%20b", "/srv/a b"),
        ("file://localhost/srv", "/srv"),
        ("dir:models", str(Path("models").absolute())),
    ],
)
def test_urls(url: str, path: str) -> None:
    assert directory_of(url) == Path(path)


@pytest.mark.parametrize("url", ["dir:", "file:", "file://host/x", "file:relative", "file:///a?b"])
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(ConfigError):
        directory_of(url)

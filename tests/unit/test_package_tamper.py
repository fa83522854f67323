"""One changed byte, anywhere in a signed package, and it is refused by the check that should."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest

from edgepack.artefacts import Package
from edgepack.errors import PackageError, TrustError
from edgepack.package import read_package
from edgepack.trust import new_key, verify
from tests.package_samples import golden, signed, write

KEY = new_key()


@pytest.fixture
def package(tmp_path: Path) -> Package:
    return signed(write(tmp_path / "a.epk", golden=golden(1)), KEY)


def test_a_byte_flipped_at_any_offset_is_refused(package: Package) -> None:
    verify(read_package(package.path), [KEY.public_key])
    good = package.path.read_bytes()
    with tarfile.open(package.path) as archive:
        members = archive.getmembers()[2:]
    content = {i for m in members for i in range(m.offset_data, m.offset_data + m.size)}
    with package.path.open("r+b", buffering=0) as stream:
        for offset in range(len(good)):
            os.pwrite(stream.fileno(), bytes([good[offset] ^ (1 << offset % 8)]), offset)
            with pytest.raises((PackageError, TrustError)) as caught:
                read_package(package.path)
            os.pwrite(stream.fileno(), good[offset : offset + 1], offset)
            if offset in content:
                assert isinstance(caught.value, TrustError), offset
                assert caught.value.check == "digest"
            else:
                assert isinstance(caught.value, PackageError), offset
    assert package.path.read_bytes() == good
    verify(read_package(package.path), [KEY.public_key])


def test_a_byte_removed_or_added_at_any_block_is_refused(package: Package) -> None:
    good = package.path.read_bytes()
    for offset in range(0, len(good), 512):
        for changed in (good[:offset] + good[offset + 1 :], good[:offset] + b"\0" + good[offset:]):
            package.path.write_bytes(changed)
            with pytest.raises((PackageError, TrustError)):
                read_package(package.path)

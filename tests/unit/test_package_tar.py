from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest

from edgepack.errors import PackageError
from edgepack.package.tar import (
    BLOCK,
    MAX_ENTRIES,
    MAX_SIZE,
    Entry,
    TarWriter,
    entries,
    header,
    read_chunks,
)
from tests.package_samples import pack

CONTENTS = [("first", b"x" * 30), ("a/second", b"y" * 512), ("empty", b""), ("last", b"z" * 513)]
SIZE_FIELD = slice(124, 136)
CHECKSUM_FIELD = slice(148, 156)


def archive(tmp_path: Path) -> bytes:
    return pack(tmp_path / "a.tar", CONTENTS).read_bytes()


def scan(data: bytes) -> list[Entry]:
    return list(entries(io.BytesIO(data), len(data)))


def with_checksum(block: bytes) -> bytes:
    changed = bytearray(block)
    changed[CHECKSUM_FIELD] = b" " * 8
    changed[CHECKSUM_FIELD] = b"%06o\0 " % sum(changed)
    return bytes(changed)


@pytest.mark.parametrize(("name", "size"), [("a", 0), ("blobs/sha256/" + "f" * 64, MAX_SIZE)])
def test_a_header_is_what_tarfile_writes_for_ustar(name: str, size: int) -> None:
    info = tarfile.TarInfo(name)
    info.size = size
    expected = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    # Some Python versions write device numbers of a plain file as zeros, others as NULs, as we do.
    expected[329:345] = bytes(16)
    assert header(name, size) == with_checksum(bytes(expected))


@pytest.mark.parametrize("size", [-1, MAX_SIZE + 1])
def test_a_size_that_has_no_field_is_refused(size: int) -> None:
    with pytest.raises(PackageError, match="under 8 GiB"):
        header("a", size)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    data = archive(tmp_path)
    stream = io.BytesIO(data)
    found = {e.name: b"".join(read_chunks(stream, e)) for e in scan(data)}
    assert list(found.items()) == CONTENTS
    assert len(data) % BLOCK == 0
    assert data.endswith(bytes(2 * BLOCK))


def test_gnu_tar_reads_it_without_a_warning(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(archive(tmp_path))
    done = subprocess.run(
        ["tar", "-xvf", "a.tar"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [name for name, _ in CONTENTS]
    assert done.stderr == ""
    assert (tmp_path / "a/second").read_bytes() == CONTENTS[1][1]


def test_every_flipped_bit_outside_of_contents_is_refused(tmp_path: Path) -> None:
    good = archive(tmp_path)
    inside = {i for e in scan(good) for i in range(e.offset, e.offset + e.size)}
    for position in set(range(len(good))) - inside:
        for bit in range(8):
            bad = bytearray(good)
            bad[position] ^= 1 << bit
            with pytest.raises(PackageError):
                scan(bytes(bad))


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    good = archive(tmp_path)
    for length in range(len(good)):
        with pytest.raises(PackageError, match="truncated"):
            scan(good[:length])


@pytest.mark.parametrize("extra", [b"\0", bytes(BLOCK), b"x", bytes(10240 - 4096)])
def test_anything_after_the_end_is_refused(tmp_path: Path, extra: bytes) -> None:
    with pytest.raises(PackageError, match="after the end"):
        scan(archive(tmp_path) + extra)


@pytest.mark.parametrize(
    ("at", "to"),
    [
        *(
            (156, kind)
            for kind in (b"1", b"2", b"3", b"5", b"7", b"x", b"g", b"L", b"K", b"S", b"\0")
        ),
        *((124, size) for size in (b"\x80", b"-0000000036", b"+0000000036", b"0_000000036")),
        *((124, size) for size in (b"         36 ", b"00000000036 ", b"00000000038", b"36\0")),
        *((0, name) for name in (b"\0", b"a b", b"\xc3\xa4", b"a\x01", b"a\0b")),
        *((100, mode) for mode in (b"0000755", b"0004644", b"0000644 ")),
        *((108, b"0001750"), (116, b"0001750"), (136, b"00000000001")),
        *((157, b"/etc/passwd"), (257, b"ustar  \0"), (257, b"\0"), (265, b"root"), (297, b"root")),
        *((329, b"0000000"), (345, b"prefix"), (500, b"x")),
    ],
)
def test_a_header_field_with_another_value_is_refused_whatever_its_checksum(
    tmp_path: Path, at: int, to: bytes
) -> None:
    good = archive(tmp_path)
    block = bytearray(good[:BLOCK])
    block[at : at + len(to)] = to
    with pytest.raises(PackageError, match="header at byte 0 "):
        scan(with_checksum(bytes(block)) + good[BLOCK:])


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_extended_headers_of_pax_and_gnu_are_refused(kind: int) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=kind) as tar:
        info = tarfile.TarInfo("n" * 200)
        tar.addfile(info, io.BytesIO())
    with pytest.raises(PackageError, match="header at byte 0 "):
        scan(stream.getvalue())


def test_a_size_beyond_the_file_is_refused_without_reading_it() -> None:
    with pytest.raises(PackageError, match="truncated: big"):
        scan(header("big", MAX_SIZE) + bytes(2 * BLOCK))


def test_more_entries_than_the_limit_are_refused(tmp_path: Path) -> None:
    most = pack(tmp_path / "most.tar", [(f"e{i}", b"") for i in range(MAX_ENTRIES)])
    assert len(scan(most.read_bytes())) == MAX_ENTRIES
    over = pack(tmp_path / "over.tar", [(f"e{i}", b"") for i in range(MAX_ENTRIES + 1)])
    with pytest.raises(PackageError, match="more than 1024"):
        scan(over.read_bytes())


def test_content_of_another_length_than_announced_is_not_written_silently() -> None:
    with pytest.raises(PackageError, match="gave 3 bytes, not 4"):
        TarWriter(io.BytesIO()).add("a", 4, (b"abc",))

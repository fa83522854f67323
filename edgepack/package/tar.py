r"""Canonical tar: the one ustar encoding of a list of (name, content) that packages are written in.

POSIX.1-1988 ustar, regular files only. Each header is a function of name and size: mode 0000644,
uid, gid and mtime 0, type flag ``0``, magic ``ustar\0`` and version ``00``, everything else NUL (what
Python's tarfile writes in USTAR_FORMAT for such a file). Content is padded with zeros to 512 bytes.
After the last entry come exactly two zero blocks, and then the file ends.

The reader makes every header again from the name and size it states, and compares all 512 bytes. So
there are no links, devices, directories, PAX or GNU extensions, owners, times or signed sizes to
handle, and no byte of the file that could be changed without being noticed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from edgepack.errors import PackageError

BLOCK = 512
CHUNK = 1 << 20
MAX_ENTRIES = 1024
MAX_SIZE = 8**11 - 1
"""Eleven octal digits: 8 GiB less one byte."""

_END = bytes(2 * BLOCK)
_HEADER = struct.Struct("100s8s8s8s12s12s8s1s100s6s2s32s32s8s8s155s12x")
_CHECKSUM = slice(148, 156)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A file inside the archive: ``size`` bytes of content that start at ``offset``."""

    name: str
    size: int
    offset: int


def header(name: str, size: int) -> bytes:
    """The 512 bytes before an entry's content. The name is ASCII, at most 100 characters."""
    if not 0 <= size <= MAX_SIZE:
        raise PackageError(f"{name} is {size} bytes; an entry of a package is under 8 GiB")
    fields = (
        *(name.encode("ascii"), b"0000644", b"0000000", b"0000000"),
        *(b"%011o" % size, b"00000000000", b" " * 8, b"0", b"", b"ustar", b"00"),
        *(b"", b"", b"", b"", b""),
    )
    block = bytearray(_HEADER.pack(*fields))
    block[_CHECKSUM] = b"%06o\0 " % sum(block)
    return bytes(block)


def padding(size: int) -> int:
    """Zero bytes between ``size`` bytes of content and the next header."""
    return -size % BLOCK


class TarWriter:
    """Writes entries one after another, then the end of the archive."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def add(self, name: str, size: int, chunks: Iterable[bytes | memoryview]) -> None:
        """Append one file, whose chunks come to ``size`` bytes together."""
        self._stream.write(header(name, size))
        written = 0
        for chunk in chunks:
            self._stream.write(chunk)
            written += len(chunk)
        if written != size:
            raise PackageError(f"{name} gave {written} bytes, not {size}")
        self._stream.write(bytes(padding(size)))

    def close(self) -> None:
        """Append the two zero blocks."""
        self._stream.write(_END)


def entries(stream: BinaryIO, length: int) -> Iterator[Entry]:
    """Walk an archive of ``length`` bytes from its start; content is skipped, not read.

    The caller may move the stream between two entries.

    Raises:
        PackageError: It is not canonical, is truncated, or has bytes after its end.
    """
    position = 0
    for count in range(MAX_ENTRIES + 1):
        stream.seek(position)
        block = stream.read(BLOCK)
        if len(block) < BLOCK:
            raise PackageError(f"truncated: it ends at byte {position + len(block)}, in a header")
        if not any(block):
            _check_end(stream, position)
            return
        if count == MAX_ENTRIES:
            raise PackageError(f"more than {MAX_ENTRIES} entries")
        entry = _parse(block, position)
        position = entry.offset + entry.size + padding(entry.size)
        if position > length:
            raise PackageError(f"truncated: {entry.name} ends at byte {position} of {length}")
        yield entry
        stream.seek(entry.offset + entry.size)
        if any(stream.read(padding(entry.size))):
            raise PackageError(f"the padding after {entry.name} is not zero")


def read_chunks(stream: BinaryIO, entry: Entry) -> Iterator[bytes]:
    """An entry's content, in pieces of at most CHUNK bytes."""
    stream.seek(entry.offset)
    left = entry.size
    while left:
        chunk = stream.read(min(left, CHUNK))
        if not chunk:
            raise PackageError(f"truncated: {entry.name} lacks {left} bytes")
        left -= len(chunk)
        yield chunk


def _parse(block: bytes, position: int) -> Entry:
    raw_name, raw_size = block[:100].rstrip(b"\0"), block[124:135]
    digits = set(raw_size) <= set(b"01234567")
    size = int(raw_size, 8) if digits else 0
    printable = all(0x21 <= byte < 0x7F for byte in raw_name)
    name = raw_name.decode("ascii") if printable else repr(raw_name)[1:]
    if not (digits and printable and header(name, size) == block):
        raise PackageError(
            f"the tar header at byte {position} ({name[:100] or 'no name'}) is not the canonical one"
            f" of a regular file"
        )
    return Entry(name=name, size=size, offset=position + BLOCK)


def _check_end(stream: BinaryIO, position: int) -> None:
    stream.seek(position)
    end = stream.read(len(_END) + 1)
    if len(end) < len(_END):
        raise PackageError(f"truncated: it ends at byte {position + len(end)}, in its last block")
    if end != _END:
        raise PackageError(f"there are bytes after the end of the archive, at {position + BLOCK}")

"""An open .epk file: its entries found by name, its blobs hashed whenever they are read.

Opening checks the tar, the order of the entries, ``oci-layout`` and ``index.json``. It reads no blob,
so it is cheap even where the weights are large; whoever reads a blob later gets exactly the content
that its digest promises, or a TrustError, even if the file was changed in the meantime.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from edgepack import canonical
from edgepack.errors import PackageError, TrustError
from edgepack.package import layout, oci
from edgepack.package.tar import Entry, entries, read_chunks

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

T = TypeVar("T")


class Archive:
    """A context manager; whatever is wrong with the file's form is a PackageError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stream = _open(path)
        try:
            with _at(path):
                length = os.fstat(self._stream.fileno()).st_size
                found = list(entries(self._stream, length))
                self.blobs: dict[str, Entry] = _blobs(found)
                self.index = self._index_descriptor(found)
        except BaseException:
            self._stream.close()
            raise

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stream.close()

    def chunks(self, digest: str) -> Iterator[bytes]:
        """A blob's content in pieces; the last one is given only if the whole has its digest."""
        entry = self.entry(digest)
        hasher = hashlib.sha256()
        held = b""
        with _at(self.path):
            for chunk in read_chunks(self._stream, entry):
                if held:
                    yield held
                hasher.update(chunk)
                held = chunk
        if "sha256:" + hasher.hexdigest() != digest:
            raise _wrong_digest(self.path, digest)
        if held:
            yield held

    def document(self, digest: str, what: str) -> bytes:
        """The content of a blob that is a JSON document, and therefore small."""
        size = self.entry(digest).size
        if size > canonical.MAX_DOCUMENT_BYTES:
            raise PackageError(
                f"{self.path}: {what} is {size} bytes, over {canonical.MAX_DOCUMENT_BYTES}"
            )
        return b"".join(self.chunks(digest))

    def blob(self, digest: str) -> layout.Blob:
        """A blob to write into another package while this one is open."""
        return layout.Blob(
            digest=digest, size=self.entry(digest).size, chunks=lambda: self.chunks(digest)
        )

    def parse(self, parser: Callable[[bytes, str], T], digest: str, what: str) -> T:
        """A blob through a strict parser; what it refuses is a PackageError."""
        data = self.document(digest, what)
        with _at(self.path):
            return parser(data, what)

    def entry(self, digest: str) -> Entry:
        """Where a blob's content is; a PackageError where it is not there."""
        if digest not in self.blobs:
            raise PackageError(f"{self.path}: it lacks the blob {digest}")
        return self.blobs[digest]

    def _index_descriptor(self, found: list[Entry]) -> oci.Descriptor:
        first, second = found[:2]
        if self._content(first, len(oci.LAYOUT)) != oci.LAYOUT:
            raise PackageError(f"{layout.LAYOUT_NAME} is not {oci.LAYOUT.decode()}")
        data = self._content(second, canonical.MAX_DOCUMENT_BYTES)
        root = oci.ImageIndex.from_bytes(data, layout.INDEX_NAME)
        if len(root.manifests) != 1:
            raise PackageError(f"{layout.INDEX_NAME} does not name exactly one package index")
        index = root.manifests[0]
        if layout.root_index(index.digest, index.size) != data:
            raise PackageError(f"{layout.INDEX_NAME} is not a plain reference to a package index")
        return index

    def _content(self, entry: Entry, most: int) -> bytes:
        if entry.size > most:
            raise PackageError(f"{entry.name} is {entry.size} bytes, over {most}")
        return b"".join(read_chunks(self._stream, entry))


class BlobReader(io.RawIOBase):
    """A blob as a readable, seekable binary file.

    Read from its start to its end, in whatever pieces, it raises a TrustError instead of its end where
    the content has not the blob's digest.
    """

    def __init__(self, path: Path, entry: Entry, digest: str) -> None:
        super().__init__()
        self._path = path
        self._entry = entry
        self._digest = digest
        self._position = 0
        self._hashed = 0
        self._hasher = hashlib.sha256()
        self._stream = _open(path)

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Read at most the buffer's size; 0 at the end."""
        view = memoryview(buffer).cast("B")
        left = max(self._entry.size - self._position, 0)
        with _at(self._path):
            self._stream.seek(self._entry.offset + self._position)
            count = self._stream.readinto(view[: min(left, len(view))])
            if left and len(view) and not count:
                raise PackageError(f"truncated in {self._entry.name}")
        if self._hashed == self._position:
            self._hasher.update(view[:count])
            self._hashed += count
        self._position += count
        self._check()
        return count

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move; the start begins the check of the digest anew."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._entry.size}
        position = base[whence] + offset
        if position < 0:
            raise ValueError(f"negative seek position {position}")
        self._position = position
        if position == 0:
            self._hashed = 0
            self._hasher = hashlib.sha256()
        return position

    def tell(self) -> int:
        """Position in bytes."""
        return self._position

    def close(self) -> None:
        """Close the file."""
        if not self.closed:
            self._stream.close()
        super().close()

    def _check(self) -> None:
        complete = self._hashed == self._entry.size == self._position
        if complete and "sha256:" + self._hasher.hexdigest() != self._digest:
            raise _wrong_digest(self._path, self._digest)


def _open(path: Path) -> io.BufferedReader:
    try:
        if not path.is_file():
            raise PackageError(f"{path} is not a file" if path.exists() else f"there is no {path}")
        return path.open("rb")
    except OSError as error:
        raise PackageError(f"cannot read {path}: {error.strerror or error}") from error


def _blobs(found: list[Entry]) -> dict[str, Entry]:
    names = [entry.name for entry in found]
    if names[:2] != [layout.LAYOUT_NAME, layout.INDEX_NAME]:
        first = ", ".join(names[:2]) or "nothing"
        raise PackageError(
            f"it begins with {first}, not with {layout.LAYOUT_NAME}, {layout.INDEX_NAME}"
        )
    blobs: dict[str, Entry] = {}
    previous = ""
    for entry in found[2:]:
        digits = entry.name.removeprefix(layout.BLOB_PREFIX)
        if digits == entry.name:
            raise PackageError(f"{entry.name!r} does not belong in a package")
        canonical.hexadecimal(digits, entry.name)
        if digits <= previous:
            fault = "is there twice" if digits == previous else "is out of order"
            raise PackageError(f"{entry.name} {fault}")
        previous = digits
        blobs["sha256:" + digits] = entry
    return blobs


def _wrong_digest(path: Path, digest: str) -> TrustError:
    return TrustError(
        f"{path}: the content of {layout.blob_name(digest)} has another digest",
        "The file is damaged or was changed: get it again, or compile and sign it again",
        check="digest",
    )


@contextlib.contextmanager
def _at(path: Path) -> Iterator[None]:
    """Errors of the form, with the file's path in front."""
    try:
        yield
    except PackageError as error:
        raise PackageError(f"{path}: {error.message}", error.hint) from error
    except canonical.MalformedError as error:
        raise PackageError(f"{path}: {error}") from error
    except OSError as error:
        raise PackageError(f"cannot read {path}: {error.strerror or error}") from error

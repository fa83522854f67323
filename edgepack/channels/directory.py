"""``dir:PATH`` and ``file:///PATH``: a directory that devices pull from.

A USB stick, a network share, the root of a web server. The layout is pointer.py's. Every file is
written under a temporary name, synced, and renamed, so power may go at any moment.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from edgepack.artefacts import Package, PushResult, SignedPackage
from edgepack.channels.channel import (
    ChannelOptions,
    PackageContents,
    package_blobs,
    signature_envelope,
)
from edgepack.channels.pointer import blob_path, pointer_path, read_pointer, refuse_to_go_back
from edgepack.errors import ChannelError, ConfigError

_CHUNK = 1 << 20
_LOCK_SECONDS = 30.0


def push(
    package: SignedPackage, url: str, *, contents: PackageContents, options: ChannelOptions
) -> PushResult:
    """Publish ``package`` in the directory that ``url`` names; it is made if its parent exists.

    Raises:
        ConfigError: The URL names no directory.
        ChannelError: The directory cannot be written, or is full.
        TrustError: It offers a newer version, or other contents of this version.
    """
    root = directory_of(url)
    envelope = signature_envelope(package)
    inner = package.package
    blobs = package_blobs(inner)
    pointer = root / pointer_path(inner.name)
    with _clear_errors(root):
        _make_layout(root)
        with _locked(pointer.parent):
            changed = _pointer_changes(inner, envelope, pointer)
            missing = {
                digest: size for digest, size in blobs.items() if not _is_there(root, digest, size)
            }
            total, sent = sum(missing.values()), 0
            for digest, size in missing.items():
                with contents.open_blob(inner, digest) as blob:
                    _write_file(root / blob_path(digest), blob)
                sent += size
                if options.progress:
                    options.progress(sent, total)
            if changed:
                _write_file(pointer, envelope)
    return PushResult(
        channel="directory",
        destination=str(root),
        sent_blobs=len(missing),
        sent_bytes=sent,
        skipped_blobs=len(blobs) - len(missing),
        detail={
            "model": inner.name,
            "version": inner.version,
            "pointer": str(pointer),
            "changed": changed,
        },
    )


def directory_of(url: str) -> Path:
    """The path in ``dir:PATH`` (taken as it stands) or ``file:///PATH`` (percent-decoded)."""
    scheme, _, rest = url.partition(":")
    if scheme == "file":
        parts = urlsplit(url)
        if not rest.startswith("///") and parts.netloc != "localhost":
            raise ConfigError(f"{url!r} names a host", "Write file:///PATH, or dir:PATH")
        if parts.query or parts.fragment:
            raise ConfigError(
                f"{url!r} has a query", "Write ? as %3F and # as %23, or use dir:PATH"
            )
        rest = unquote(parts.path)
    if not rest or "\0" in rest:
        raise ConfigError(f"{url!r} names no directory", "Write dir:PATH or file:///PATH")
    return Path(rest).absolute()


def _make_layout(root: Path) -> None:
    root.mkdir(exist_ok=True)
    for folder in (root / "blobs" / "sha256", root / "models"):
        folder.mkdir(parents=True, exist_ok=True)
    for folder in (root / "blobs", root, root.parent):
        _sync_directory(folder)


def _pointer_changes(package: Package, envelope: bytes, pointer: Path) -> bool:
    """Whether the pointer is to be written; TrustError where it must not be."""
    try:
        old = pointer.read_bytes()
    except FileNotFoundError:
        return True
    refuse_to_go_back(package, read_pointer(old, str(pointer)), str(pointer.parent.parent))
    return old != envelope


def _is_there(root: Path, digest: str, size: int) -> bool:
    path = root / blob_path(digest)
    try:
        if path.stat().st_size != size:
            return False
        with path.open("rb") as blob:
            return f"sha256:{hashlib.file_digest(blob, 'sha256').hexdigest()}" == digest
    except FileNotFoundError:
        return False


def _write_file(path: Path, content: bytes | BinaryIO) -> None:
    """Put ``content`` at ``path`` whole or not at all, also when the power goes."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            if isinstance(content, bytes):
                file.write(content)
            else:
                while chunk := content.read(_CHUNK):
                    file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems (vfat among them, on older kernels) cannot sync a directory.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EROFS):
            raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep two pushes into one directory from racing between reading and writing a pointer."""
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        deadline = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise ChannelError(
                        f"{folder.parent} is being written by another push",
                        "Try again when that one has ended",
                    ) from error
                time.sleep(0.1)
        _remove_leftovers(folder.parent)
        yield
    finally:
        os.close(descriptor)


def _remove_leftovers(root: Path) -> None:
    """What a push that was killed left behind; the lock says that nobody is writing it."""
    for folder in (root / "blobs" / "sha256", root / "models"):
        for leftover in folder.glob(".*.part"):
            leftover.unlink(missing_ok=True)


@contextlib.contextmanager
def _clear_errors(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ChannelError(*_explain(error, root)) from error


def _explain(error: OSError, root: Path) -> tuple[str, str]:
    place = error.filename or root
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            stat = os.statvfs(root)
            free = stat.f_bavail * stat.f_frsize
            return f"{root} is full: {free} bytes free", "Make room there and push again"
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return f"{place} cannot be written: {error.strerror}", "Check its owner and mode"
        case errno.ENOTDIR | errno.EEXIST:
            return f"{place} is not a directory", "Name a directory that is there or can be made"
        case errno.ENOENT:
            return f"{root.parent} does not exist", f"mkdir -p {root.parent}"
        case _:
            return f"{place}: {error.strerror or error}", ""

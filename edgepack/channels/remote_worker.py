"""A package's worker on a device, over SSH, without installing the package: what ``bench`` measures.

    DIR/                    made by mktemp on the device, removed afterwards
      worker, weights       uploaded, unless the device's store has the same blobs: then those are used
      tensors               the shared file with the inputs
      requests              what is asked, one message after the other: the worker's stdin

One command starts the worker on all its requests, so that nothing of the way is in the times.
"""

from __future__ import annotations

import io
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

from edgepack.artefacts import Package, PackagedTarget
from edgepack.channels.channel import ChannelOptions, PackageContents
from edgepack.channels.ssh_session import Session, UploadFailedError, open_session
from edgepack.errors import ChannelError, DeviceError

_MAGIC = b"EPW1"
_HINT = (
    "was the package compiled for this CPU, and may programs run from /tmp? (TMPDIR on the device)"
)


class RemoteWorker:
    """A directory on the device with all that the worker needs."""

    def __init__(self, session: Session, folder: str) -> None:
        self._session = session
        self._folder = folder
        self._paths: dict[str, str] = {}

    def put(self, name: str, content: BinaryIO, size: int) -> None:
        """Upload one file. Raises DeviceError where the device does not take it."""
        path = f"{self._folder}/{name}"
        try:
            self._session.upload(content, size, path)
        except UploadFailedError as error:
            raise DeviceError(
                f"{self._session.name}: {path} cannot be written: {error}",
                "Is there room on the device? (df)",
                check="disk",
            ) from error
        self._paths[name] = path

    def use(self, name: str, path: str) -> None:
        """Take a file that the device has already."""
        self._paths[name] = path

    def serve(self, requests: bytes, *, threads: int, timeout: float) -> bytes:
        """Run the worker on ``requests``; all that it answered, the clock just before its start first.

        Raises:
            ChannelError: The connection was lost, or it took longer than ``timeout`` seconds.
            DeviceError: The worker does not run there, or failed; with its last words.
        """
        self.put("requests", io.BytesIO(requests), len(requests))
        worker, weights, tensors, asked = (
            shlex.quote(self._paths[name]) for name in ("worker", "weights", "tensors", "requests")
        )
        command = f"{worker} clock && exec {worker} serve {weights} {tensors} {threads} < {asked}"
        done = self._session.run(command, timeout=timeout)
        if done.status != 0:
            raise DeviceError(f"{self._session.name}: the worker: {done.last_words()}", _HINT)
        # A shell's start-up files may print before it.
        return done.stdout[max(0, done.stdout.find(_MAGIC)) :]


@contextmanager
def remote_worker(
    url: str,
    package: Package,
    target: PackagedTarget,
    *,
    contents: PackageContents,
    tensors: bytes,
    options: ChannelOptions,
) -> Iterator[RemoteWorker]:
    """The worker and weights of ``target`` on the device that ``url`` names, ready to serve.

    Raises:
        ConfigError: The URL or the SSH configuration is wrong.
        ChannelError: The device cannot be reached.
        DeviceError: It does not take the files.
    """
    with open_session(url, options) as (session, place):
        made = session.run(["mktemp", "-d"])
        folder = made.stdout.decode(errors="replace").strip().splitlines()[-1:]
        if made.status != 0 or not folder:
            raise DeviceError(
                f"{session.name}: no temporary directory: {made.last_words()}", check="disk"
            )
        try:
            worker = RemoteWorker(session, folder[0])
            for name, digest in (("worker", target.worker), ("weights", target.weights)):
                kept = f"{place.root}/blobs/sha256/{digest.removeprefix('sha256:')}"
                if session.run(["test", "-x" if name == "worker" else "-r", kept]).status == 0:
                    worker.use(name, kept)
                    continue
                with contents.open_blob(package, digest) as blob:
                    worker.put(name, blob, target.sizes[digest])
            worker.put("tensors", io.BytesIO(tensors), len(tensors))
            session.run(["chmod", "700", "--", f"{folder[0]}/worker"])
            yield worker
        finally:
            with suppress(ChannelError):
                session.run(["rm", "-rf", "--", folder[0]])

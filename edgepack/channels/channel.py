"""What every channel is: one function that takes a signed package to a destination.

A channel needs two things of a package file that only the package stage can do: hand out one blob,
and write a thin package. Stages do not import one another, so the caller passes them in as
PackageContents; the module ``edgepack.package`` is one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from edgepack.artefacts import Package, PackagedTarget, PushResult, SignedPackage
from edgepack.errors import TrustError

BLOB_KINDS = ("manifest", "config", "worker", "weights", "metadata", "golden")
"""The blobs of one target, in the order in which a channel carries them."""


class ThinFile(Protocol):
    """What is known of a thin package that was written."""

    @property
    def sent_blobs(self) -> int:
        """How many blobs are in it."""

    @property
    def skipped_blobs(self) -> int:
        """How many of the target's blobs are not, because the device has them."""


class PackageContents(Protocol):
    """How a channel gets at the bytes of a package file."""

    def open_blob(self, package: Package, digest: str) -> BinaryIO:
        """The blob ``digest`` (``sha256:`` + hex) to read from; the caller closes it."""

    def write_thin(
        self, package: Package, target_name: str, present: Collection[str], out: Path
    ) -> ThinFile:
        """Write to ``out`` what a device that has the blobs ``present`` lacks of one target."""


@dataclass(frozen=True, kw_only=True)
class ChannelOptions:
    """What a user may say about the way; a channel takes no notice of what it has no use for."""

    ssh_config: Path | None = None
    """OpenSSH client configuration instead of $EDGEPACK_SSH_CONFIG or ~/.ssh/config."""
    identity: Path | None = None
    """Private key for SSH: this one and no other."""
    connect_timeout: float = 15.0
    """Seconds for a connection, and for each answer of the other side."""
    install_timeout: float = 900.0
    """Seconds for the device to check a package, run its golden vectors and switch."""
    progress: Callable[[int, int], None] | None = None
    """Called with (bytes sent, bytes to send) while a package travels."""


class Channel(Protocol):
    """A way to a device. A module with this function is one."""

    def push(
        self,
        package: SignedPackage,
        url: str,
        *,
        contents: PackageContents,
        options: ChannelOptions,
    ) -> PushResult:
        """Carry ``package`` to ``url``; on any error what was there before is still in force."""


def target_blobs(target: PackagedTarget) -> dict[str, int]:
    """Size in bytes by digest of every blob of one target."""
    digests = (getattr(target, kind) for kind in BLOB_KINDS)
    return {digest: target.sizes[digest] for digest in digests}


def package_blobs(package: Package) -> dict[str, int]:
    """Size in bytes by digest of every blob of every target; blobs that targets share, once."""
    return {
        digest: size for target in package.targets for digest, size in target_blobs(target).items()
    }


def signature_envelope(package: SignedPackage) -> bytes:
    """The package's DSSE envelope, without which nothing travels."""
    if package.package.envelope is None:
        raise TrustError(
            f"{package.package.path} is not signed",
            f"edgepack sign {package.package.path} --key KEY",
            check="signature",
        )
    return package.package.envelope

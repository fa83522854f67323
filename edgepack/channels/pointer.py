"""The small signed pointer of a pull source: ``models/NAME.json``, which is the DSSE envelope.

A directory, a web root and a bucket are laid out alike. Blobs are immutable and come first; the
pointer names them by digest and comes last, so a device that pulls at any moment sees either the
old version whole or the new one whole:

    blobs/sha256/<64 hex digits>
    models/NAME.json

A pointer is never replaced by a lower version, nor by another package of the same version.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass

from edgepack.artefacts import Package
from edgepack.errors import ChannelError, TrustError
from edgepack.naming import parse_version


def blob_path(digest: str) -> str:
    """Where a blob stands in a pull source: ``blobs/sha256/<hex>`` for ``sha256:<hex>``."""
    algorithm, _, digits = digest.partition(":")
    return f"blobs/{algorithm}/{digits}"


def pointer_path(name: str) -> str:
    """Where the pointer of model ``name`` stands in a pull source."""
    return f"models/{name}.json"


@dataclass(frozen=True, kw_only=True)
class Pointer:
    """What a pointer says. It is read here to keep the order of versions, and trusted by nobody."""

    version: str
    digest: str


def read_pointer(envelope: bytes, where: str) -> Pointer:
    """Read version and package digest out of an envelope without checking its signatures."""
    try:
        statement = json.loads(base64.b64decode(json.loads(envelope)["payload"], validate=True))
        version = statement["predicate"]["version"]
        digest = statement["subject"][0]["digest"]["sha256"]
        parse_version(version)
        if not isinstance(digest, str):
            raise TypeError("the digest is not a string")
    except (ValueError, LookupError, TypeError) as error:
        raise ChannelError(
            f"{where} is there but is not a signed pointer of edgepack",
            "Look at what wrote it; remove it to publish this package in its place",
        ) from error
    return Pointer(version=version, digest=f"sha256:{digest}")


def refuse_to_go_back(package: Package, there: Pointer, where: str) -> None:
    """Raise TrustError unless ``package`` may replace what ``there`` points at."""
    new, old = parse_version(package.version), parse_version(there.version)
    if new < old:
        raise TrustError(
            f"{where} already offers {package.name} {there.version}; "
            f"{package.version} is lower and devices would refuse it",
            "Compile it again with a higher --version",
            check="version",
        )
    if new == old and package.digest != there.digest:
        raise TrustError(
            f"{where} already offers {package.name} {there.version} with other contents "
            f"({there.digest}); a version is published once",
            "Compile it again with a higher --version",
            check="version",
        )

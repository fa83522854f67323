"""Thin packages: what one device lacks, and nothing else.

A thin package is the same tar, with the same documents, but without the blobs of other targets and
without those that the device's store holds already. Only the agent accepts one: it takes the absent
blobs from its store, and hashes them again. ``read_package`` refuses it as incomplete.

The package index, the target's manifest and the signature always travel, so that the device has all
that it verifies in hand.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from edgepack.artefacts import Package, PackagedTarget
from edgepack.errors import PackageError
from edgepack.package import layout, oci
from edgepack.package.archive import Archive


@dataclass(frozen=True, kw_only=True)
class ThinPackage:
    """A thin package that was written, and how much of the target's content it carries."""

    path: Path
    target: str
    sent_blobs: int
    sent_bytes: int
    """Content of the blobs that are in it."""
    skipped_blobs: int
    skipped_bytes: int
    """Content of the target's blobs that the device has."""


def write_thin(
    package: Package, target_name: str, present: Collection[str], out: Path
) -> ThinPackage:
    """Write to ``out`` what a device that holds the blobs ``present`` lacks of one target.

    ``present`` are digests as hex, with or without ``sha256:``; those of other content are ignored.

    Raises:
        PackageError: The package has no such target, or cannot be read or written.
    """
    target = _target(package, target_name)
    held = {"sha256:" + digest.removeprefix("sha256:") for digest in present}
    with Archive(package.path) as archive:
        index = archive.parse(oci.ImageIndex.from_bytes, archive.index.digest, "the package index")
        always = {archive.index.digest, target.manifest}
        for line in filter(layout.is_signature, index.manifests):
            manifest = archive.parse(
                oci.ImageManifest.from_bytes, line.digest, "the signature's manifest"
            )
            always |= {line.digest, manifest.config.digest, manifest.layers[0].digest}
        skipped = (set(target.sizes) - always) & held
        blobs = [archive.blob(digest) for digest in sorted(always | set(target.sizes) - skipped)]
        layout.write_layout(out, archive.blob(archive.index.digest), blobs)
    return ThinPackage(
        path=out,
        target=target_name,
        sent_blobs=len(blobs),
        sent_bytes=sum(blob.size for blob in blobs),
        skipped_blobs=len(skipped),
        skipped_bytes=sum(target.sizes[digest] for digest in skipped),
    )


def _target(package: Package, name: str) -> PackagedTarget:
    for target in package.targets:
        if target.name == name:
            return target
    names = ", ".join(target.name for target in package.targets)
    raise PackageError(
        f"{package.path} has nothing for target {name}, only for {names}",
        f"Compile it for that device too: edgepack compile MODEL --target {name}",
    )

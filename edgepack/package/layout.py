"""Where everything of a package is: entries of the tar, media types, and who refers to whom.

    oci-layout                  constant
    index.json                  names one blob: the package index
    blobs/sha256/<hex>          sorted by hex, each referred to by
      package index             → a manifest per target, then the signature's manifest
        target manifest         → image config, worker, weights.bin, model.json, golden.bin
        signature manifest      → the empty config, the DSSE envelope

The package's own digest is that of its package index without the signature, so that signing does
not change it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from edgepack.atomic import replacing
from edgepack.package import oci
from edgepack.package.oci import Descriptor, ImageIndex, ImageManifest
from edgepack.package.tar import CHUNK, TarWriter

LAYOUT_NAME = "oci-layout"
INDEX_NAME = "index.json"
BLOB_PREFIX = "blobs/sha256/"

MODEL_TYPE = "application/vnd.edgepack.model.v1"
SIGNATURE_TYPE = "application/vnd.edgepack.signature.v1"
ENVELOPE_TYPE = "application/vnd.dsse.envelope.v1+json"
TARGET = "edgepack.target"
SIGNATURE = "edgepack.signature"

MAX_TARGETS = 64

LAYERS = {
    "worker": ("worker", "application/vnd.edgepack.worker.v1"),
    "weights": ("weights.bin", "application/vnd.edgepack.weights.v1"),
    "metadata": ("model.json", "application/vnd.edgepack.metadata.v1+json"),
    "golden": ("golden.bin", "application/vnd.edgepack.golden.v1"),
}
"""A target's layers in order, by their name in PackagedTarget: title and media type."""


@dataclass(frozen=True, kw_only=True)
class Blob:
    """Content on its way into a package; ``chunks`` gives it, each time it is called, in pieces."""

    digest: str
    size: int
    chunks: Callable[[], Iterator[bytes | memoryview]]

    @classmethod
    def of(cls, data: bytes) -> Blob:
        """Content that is in memory."""
        view = memoryview(data)
        return cls(
            digest=digest_of(data),
            size=len(data),
            chunks=lambda: (view[start : start + CHUNK] for start in range(0, len(view), CHUNK)),
        )


def digest_of(data: bytes) -> str:
    """``sha256:`` and the hex digits."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def blob_name(digest: str) -> str:
    """The tar entry of a blob."""
    return BLOB_PREFIX + digest.removeprefix("sha256:")


def root_index(digest: str, size: int) -> bytes:
    """``index.json``: one reference to the package index."""
    descriptor = Descriptor(media_type=oci.INDEX_TYPE, digest=digest, size=size)
    return ImageIndex(manifests=(descriptor,)).to_bytes()


def package_annotations(name: str, version: str) -> dict[str, str]:
    """The package index's annotations."""
    return {oci.TITLE: name, oci.VERSION: version}


def image_labels(name: str, version: str, target: str) -> dict[str, str]:
    """The labels in a target's image config; image tools show them."""
    return package_annotations(name, version) | {TARGET: target}


def layer_descriptors(blobs: dict[str, Blob]) -> tuple[Descriptor, ...]:
    """A target's layers, from its blobs by their name in LAYERS."""
    return tuple(
        Descriptor(
            media_type=media_type,
            digest=blobs[part].digest,
            size=blobs[part].size,
            annotations={oci.TITLE: title},
        )
        for part, (title, media_type) in LAYERS.items()
    )


def target_manifest(target: str, config: Blob, layers: tuple[Descriptor, ...]) -> ImageManifest:
    """The manifest of one target."""
    return ImageManifest(
        artifact_type=MODEL_TYPE,
        config=Descriptor(media_type=oci.CONFIG_TYPE, digest=config.digest, size=config.size),
        layers=layers,
        annotations={TARGET: target},
    )


def target_descriptor(target: str, manifest: Blob) -> Descriptor:
    """A target's line in the package index.

    It has no ``platform``: several targets may share one, and an image tool then takes the first.
    """
    return Descriptor(
        media_type=oci.MANIFEST_TYPE,
        digest=manifest.digest,
        size=manifest.size,
        annotations={TARGET: target},
    )


def signature_manifest(envelope: Descriptor) -> ImageManifest:
    """The manifest that holds the envelope."""
    empty = Blob.of(oci.EMPTY)
    return ImageManifest(
        artifact_type=SIGNATURE_TYPE,
        config=Descriptor(media_type=oci.EMPTY_TYPE, digest=empty.digest, size=empty.size),
        layers=(envelope,),
    )


def envelope_descriptor(envelope: Blob) -> Descriptor:
    """The signature manifest's only layer."""
    return Descriptor(media_type=ENVELOPE_TYPE, digest=envelope.digest, size=envelope.size)


def signature_descriptor(manifest: Blob) -> Descriptor:
    """The signature's line in the package index, after the targets.

    Its artifactType stands in the manifest alone: image tools of 2022 refuse it in an index.
    """
    return Descriptor(
        media_type=oci.MANIFEST_TYPE,
        digest=manifest.digest,
        size=manifest.size,
        annotations={SIGNATURE: "dsse"},
    )


def is_signature(descriptor: Descriptor) -> bool:
    """Whether a line of the package index is the signature's."""
    return SIGNATURE in descriptor.annotations


def unsigned(index: ImageIndex) -> ImageIndex:
    """The package index without the signature; its digest is the package's."""
    return replace(
        index, manifests=tuple(line for line in index.manifests if not is_signature(line))
    )


def write_layout(path: Path, index: Blob, blobs: Iterable[Blob]) -> None:
    """Write a whole .epk: the package index and the other blobs, each once, in their order."""
    contents = {blob.digest: blob for blob in (index, *blobs)}
    root = root_index(index.digest, index.size)
    with replacing(path) as stream:
        tar = TarWriter(stream)
        tar.add(LAYOUT_NAME, len(oci.LAYOUT), (oci.LAYOUT,))
        tar.add(INDEX_NAME, len(root), (root,))
        for digest in sorted(contents):
            tar.add(blob_name(digest), contents[digest].size, contents[digest].chunks())
        tar.close()

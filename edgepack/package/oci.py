"""The OCI documents that a package is made of, as classes.

Descriptors, image manifests and image indexes follow the OCI image specification 1.1, and the folder
inside the tar is its image layout 1.0.0. The classes know only the fields that packages use; reading
is strict, so that nothing in a package goes unnoticed. Example of a manifest:

    {"annotations":{"edgepack.target":"raspberrypi4"},
     "artifactType":"application/vnd.edgepack.model.v1",
     "config":{"digest":"sha256:…","mediaType":"application/vnd.oci.image.config.v1+json","size":312},
     "layers":[{"annotations":{"org.opencontainers.image.title":"worker"},"digest":"sha256:…",
                "mediaType":"application/vnd.edgepack.worker.v1","size":81920}, …],
     "mediaType":"application/vnd.oci.image.manifest.v1+json","schemaVersion":2}
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from edgepack import canonical
from edgepack.package.tar import MAX_SIZE

INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
TITLE = "org.opencontainers.image.title"
VERSION = "org.opencontainers.image.version"

EMPTY = b"{}"
"""The content of the empty descriptor, for a manifest that has no config of its own."""

LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
"""The file ``oci-layout``."""

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "arm": "arm", "riscv64": "riscv64"}
"""The architecture's name in OCI (Go's GOARCH) by its name in a target profile."""

_MAX_LIST = 1024


@dataclass(frozen=True, kw_only=True)
class Descriptor:
    """A reference to a blob by digest (``sha256:`` and 64 hex digits), with its size in bytes."""

    media_type: str
    digest: str
    size: int
    annotations: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As it stands in a manifest or an index."""
        data = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        return data | _annotated(self.annotations)

    @classmethod
    def from_dict(cls, data: object, where: str) -> Descriptor:
        """The inverse of to_dict; anything else is a MalformedError."""
        values = canonical.members(data, where, ("mediaType", "digest", "size"), ("annotations",))
        return cls(
            media_type=canonical.text(values["mediaType"], f"{where}.mediaType"),
            digest=_digest(values["digest"], f"{where}.digest"),
            size=canonical.integer(values["size"], f"{where}.size", 0, MAX_SIZE),
            annotations=_annotations(values, where),
        )


@dataclass(frozen=True, kw_only=True)
class ImageManifest:
    """A config and layers: one target of a package, or its signature."""

    artifact_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: dict[str, str] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """The manifest's blob."""
        data = {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": self.config.to_dict(),
            "layers": [layer.to_dict() for layer in self.layers],
            "artifactType": self.artifact_type,
        }
        return canonical.encode(data | _annotated(self.annotations))

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> ImageManifest:
        """The inverse of to_bytes; anything else is a MalformedError."""
        required = ("schemaVersion", "mediaType", "config", "layers", "artifactType")
        values = canonical.members(canonical.decode(data, where), where, required, ("annotations",))
        _check_kind(values, where, MANIFEST_TYPE)
        layers = canonical.items(values["layers"], f"{where}.layers", _MAX_LIST)
        return cls(
            artifact_type=canonical.text(values["artifactType"], f"{where}.artifactType"),
            config=Descriptor.from_dict(values["config"], f"{where}.config"),
            layers=tuple(
                Descriptor.from_dict(layer, f"{where}.layers[{i}]")
                for i, layer in enumerate(layers)
            ),
            annotations=_annotations(values, where),
        )


@dataclass(frozen=True, kw_only=True)
class ImageIndex:
    """A list of manifests: a package's targets in order, then its signature."""

    manifests: tuple[Descriptor, ...]
    annotations: dict[str, str] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """The index's blob."""
        data = {
            "schemaVersion": 2,
            "mediaType": INDEX_TYPE,
            "manifests": [manifest.to_dict() for manifest in self.manifests],
        }
        return canonical.encode(data | _annotated(self.annotations))

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> ImageIndex:
        """The inverse of to_bytes; anything else is a MalformedError."""
        values = canonical.members(
            canonical.decode(data, where),
            where,
            ("schemaVersion", "mediaType", "manifests"),
            ("annotations",),
        )
        _check_kind(values, where, INDEX_TYPE)
        manifests = canonical.items(values["manifests"], f"{where}.manifests", _MAX_LIST)
        return cls(
            manifests=tuple(
                Descriptor.from_dict(manifest, f"{where}.manifests[{i}]")
                for i, manifest in enumerate(manifests)
            ),
            annotations=_annotations(values, where),
        )


def image_config(arch: str, labels: dict[str, str], layers: tuple[Descriptor, ...]) -> bytes:
    """An image configuration for these layers, so that image tools read the package.

    ``arch`` is a target profile's. The layers are not file-system changesets; their ``diff_ids``
    are their digests.
    """
    config = {
        "architecture": ARCHITECTURES[arch],
        "os": "linux",
        "config": {"Labels": labels},
        "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in layers]},
    }
    return canonical.encode(config)


def _annotated(annotations: dict[str, str]) -> dict[str, Any]:
    """The ``annotations`` member, left out where there are none."""
    return {"annotations": annotations} if annotations else {}


def _annotations(values: dict[str, Any], where: str) -> dict[str, str]:
    if "annotations" not in values:
        return {}
    annotations = canonical.texts(values["annotations"], f"{where}.annotations")
    if not annotations:
        raise canonical.MalformedError(f"{where}.annotations is empty")
    return annotations


def _digest(value: object, where: str) -> str:
    digest = canonical.text(value, where)
    if not digest.startswith("sha256:"):
        raise canonical.MalformedError(f"{where} is not a sha256 digest: {digest[:80]!r}")
    canonical.hexadecimal(digest.removeprefix("sha256:"), where)
    return digest


def _check_kind(values: dict[str, Any], where: str, media_type: str) -> None:
    canonical.integer(values["schemaVersion"], f"{where}.schemaVersion", 2, 2)
    if values["mediaType"] != media_type:
        raise canonical.MalformedError(f"{where}.mediaType is not {media_type}")

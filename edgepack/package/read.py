"""Reading an .epk: the whole structure and every digest, before anything in it is used."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path

from edgepack import canonical
from edgepack.artefacts import GoldenVectors, Package, PackagedTarget
from edgepack.atomic import replacing
from edgepack.canonical import MalformedError
from edgepack.errors import PackageError
from edgepack.naming import is_name, parse_version
from edgepack.package import golden, layout, metadata, oci
from edgepack.package.archive import Archive, BlobReader
from edgepack.package.oci import Descriptor, ImageIndex, ImageManifest


def read_package(path: Path) -> Package:
    """Check a whole package file. Weights are hashed in pieces, never held.

    Raises:
        PackageError: It is not a well-formed package: truncated, not canonical, something is
            missing, unknown or unreferenced, or its parts do not agree.
        TrustError: A blob's content has not its digest (check ``digest``).
    """
    with Archive(path) as archive:
        for digest in archive.blobs:
            for _ in archive.chunks(digest):
                pass
        try:
            return _Reading(archive).package()
        except MalformedError as error:
            raise PackageError(f"{path}: {error}") from error


def open_blob(package: Package, digest: str) -> io.BufferedReader:
    """A blob as a binary file to read from; its digest is checked when its end is reached."""
    with Archive(package.path) as archive:
        entry = archive.entry(digest)
    return io.BufferedReader(BlobReader(package.path, entry, digest), 1 << 20)


def read_blob(package: Package, digest: str) -> bytes:
    """A whole blob, in memory, checked against its digest."""
    with Archive(package.path) as archive:
        return b"".join(archive.chunks(digest))


def extract_blob(package: Package, digest: str, dest: Path) -> None:
    """Write a blob to ``dest``, which is whole and checked or not there."""
    with Archive(package.path) as archive, replacing(dest) as stream:
        for chunk in archive.chunks(digest):
            stream.write(chunk)


def read_golden(package: Package, target: PackagedTarget) -> GoldenVectors:
    """The golden vectors of one target, as NumPy arrays."""
    data = read_blob(package, target.golden)
    try:
        return golden.decode(data, target.inputs, target.outputs, float(target.model["tolerance"]))
    except MalformedError as error:
        raise PackageError(f"{package.path}: target {target.name}: {error}") from error


@dataclass
class _Reading:
    """One walk from the package index to every blob; ``used`` is what it came by."""

    archive: Archive
    used: set[str] = field(default_factory=set)

    def package(self) -> Package:
        line = self.archive.index
        self._use(line, "the package index")
        index = self.archive.parse(ImageIndex.from_bytes, line.digest, "the package index")
        name, version = _package_names(index)
        bare = layout.unsigned(index)
        if not 1 <= len(bare.manifests) <= layout.MAX_TARGETS:
            raise MalformedError(f"a package has 1 to {layout.MAX_TARGETS} targets")
        targets = tuple(self._target(line, name, version) for line in bare.manifests)
        if len({target.name for target in targets}) != len(targets):
            raise MalformedError("two targets have one name")
        envelope = self._envelope(index)
        for digest in self.archive.blobs:
            if digest not in self.used:
                raise MalformedError(f"nothing refers to {layout.blob_name(digest)}")
        return Package(
            path=self.archive.path,
            digest=layout.digest_of(bare.to_bytes()),
            name=name,
            version=version,
            targets=targets,
            envelope=envelope,
        )

    def _use(self, descriptor: Descriptor, what: str) -> None:
        entry = self.archive.blobs.get(descriptor.digest)
        if entry is None:
            raise MalformedError(f"{what} is missing: {layout.blob_name(descriptor.digest)}")
        if entry.size != descriptor.size:
            raise MalformedError(f"{what} is {entry.size} bytes, not {descriptor.size} as stated")
        self.used.add(descriptor.digest)

    def _manifest(self, line: Descriptor, what: str) -> ImageManifest:
        self._use(line, f"{what}, manifest")
        return self.archive.parse(ImageManifest.from_bytes, line.digest, f"{what}, manifest")

    def _target(self, line: Descriptor, name: str, version: str) -> PackagedTarget:
        target = line.annotations.get(layout.TARGET, "")
        if not is_name(target):
            raise MalformedError(f"the package index has a target without a valid name: {target!r}")
        what = f"target {target}"
        manifest = self._manifest(line, what)
        if line != layout.target_descriptor(target, self.archive.blob(line.digest)):
            raise MalformedError(f"{what} is not stated as it should be in the package index")
        layers = self._layers(manifest, what)
        model = self.archive.parse(metadata.parse, layers["metadata"].digest, f"{what}, model.json")
        self._check_model(model, layers, (name, version, target))
        labels = layout.image_labels(name, version, target)
        config = oci.image_config(model["target"]["arch"], labels, manifest.layers)
        if layout.digest_of(config) != manifest.config.digest:
            raise MalformedError(f"{what}: the image config does not agree with the rest")
        blobs = {"manifest": line, "config": manifest.config, **layers}
        packaged = PackagedTarget(
            name=target,
            arch=model["target"]["arch"],
            **{part: blob.digest for part, blob in blobs.items()},
            sizes={blob.digest: blob.size for blob in blobs.values()},
            inputs=metadata.tensors(model, "inputs", what),
            outputs=metadata.tensors(model, "outputs", what),
            model=model,
            calls=metadata.calls(model, what),
        )
        self._check_golden(packaged)
        return packaged

    def _layers(self, manifest: ImageManifest, what: str) -> dict[str, Descriptor]:
        self._use(manifest.config, f"{what}, image config")
        if len(manifest.layers) != len(layout.LAYERS):
            raise MalformedError(f"{what} has {len(manifest.layers)} layers")
        layers = dict(zip(layout.LAYERS, manifest.layers, strict=True))
        for part, layer in layers.items():
            self._use(layer, f"{what}, {part}")
        blobs = {part: self.archive.blob(layer.digest) for part, layer in layers.items()}
        config = self.archive.blob(manifest.config.digest)
        target = manifest.annotations.get(layout.TARGET, "")
        again = layout.target_manifest(target, config, layout.layer_descriptors(blobs))
        if manifest != again or what != f"target {target}":
            raise MalformedError(f"{what}: the manifest is not one of a package's target")
        return layers

    def _check_model(
        self, model: dict[str, object], layers: dict[str, Descriptor], names: tuple[str, str, str]
    ) -> None:
        what = f"target {names[2]}, model.json"
        profile = canonical.mapping(model["target"], what)
        if (model["name"], model["version"], profile["name"]) != names:
            raise MalformedError(f"{what} is about another name, version or target")
        if model["weights_bytes"] != layers["weights"].size:
            raise MalformedError(f"{what} states {model['weights_bytes']} bytes of weights")

    def _check_golden(self, target: PackagedTarget) -> None:
        header = next(self.archive.chunks(target.golden), b"")[:64]
        length = target.sizes[target.golden]
        count = golden.check_header(header, length, target.inputs, target.outputs)
        if count != target.model["golden"]["count"]:
            raise MalformedError(f"target {target.name}: golden.bin holds {count} vectors")

    def _envelope(self, index: ImageIndex) -> bytes | None:
        lines = [line for line in index.manifests if layout.is_signature(line)]
        if not lines:
            return None
        line = lines[0]
        if lines != [index.manifests[-1]]:
            raise MalformedError("the signature is not one line at the end of the package index")
        manifest = self._manifest(line, "the signature")
        if line != layout.signature_descriptor(self.archive.blob(line.digest)):
            raise MalformedError("the signature is not stated as it should be in the package index")
        if len(manifest.layers) != 1:
            raise MalformedError("the signature's manifest has not exactly one layer")
        self._use(manifest.layers[0], "the envelope")
        envelope = self.archive.blob(manifest.layers[0].digest)
        if manifest != layout.signature_manifest(layout.envelope_descriptor(envelope)):
            raise MalformedError("the signature's manifest does not hold exactly one envelope")
        self._use(manifest.config, "the signature's empty config")
        return self.archive.document(envelope.digest, "the envelope")


def _package_names(index: ImageIndex) -> tuple[str, str]:
    name = index.annotations.get(oci.TITLE, "")
    version = index.annotations.get(oci.VERSION, "")
    if index.annotations != layout.package_annotations(name, version):
        raise MalformedError("the package index has other annotations than name and version")
    if not is_name(name):
        raise MalformedError(f"{name!r} is not a package name")
    try:
        parse_version(version)
    except ValueError as error:
        raise MalformedError(str(error)) from error
    return name, version

"""Writing an .epk: from compiled targets, with another envelope, or thinned for one device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgepack import canonical
from edgepack.artefacts import (
    Baseline,
    CheckResult,
    GoldenVectors,
    KernelInfo,
    Package,
    TensorSpec,
)
from edgepack.errors import ConfigError, PackageError
from edgepack.naming import NAME_RULE, is_name, parse_version
from edgepack.package import golden, layout, metadata, oci
from edgepack.package.archive import Archive
from edgepack.package.layout import Blob
from edgepack.package.read import read_package
from edgepack.targets import Target


@dataclass(frozen=True, kw_only=True)
class TargetContent:
    """What goes into a package for one target."""

    target: Target
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    worker: bytes = field(repr=False)
    """Static executable."""
    weights: bytes = field(repr=False)
    arena_bytes: int
    code_bytes: int
    calls: tuple[KernelInfo, ...]
    """The calls of the plan, in order."""
    golden: GoldenVectors = field(repr=False)
    check: CheckResult
    source: dict[str, str]
    """``sha256`` (hex), ``format`` and ``file`` (name without folders) of the source model."""
    tools: dict[str, str]
    """Version of each tool that had a hand in it, by name."""
    baseline: Baseline | None = None
    """How tensors are spread on data that the user gave; None without any."""


def write_package(
    path: Path, *, name: str, version: str, models: Sequence[TargetContent]
) -> Package:
    """Write ``path`` and read it back. The same contents give the same bytes, wherever and whenever.

    Raises:
        ConfigError: The name or the version is not a valid one.
        PackageError: The contents do not fit together, or the file cannot be written. ``path`` is
            then as it was before.
    """
    _check_names(name, version, models)
    blobs: list[Blob] = []
    lines = []
    try:
        for content in models:
            manifest, parts = _target_blobs(name, version, content)
            blobs += [manifest, *parts]
            lines.append(layout.target_descriptor(content.target.name, manifest))
        index = oci.ImageIndex(
            manifests=tuple(lines), annotations=layout.package_annotations(name, version)
        )
        layout.write_layout(path, Blob.of(index.to_bytes()), blobs)
    except canonical.MalformedError as error:
        raise PackageError(f"cannot make {path}: {error}") from error
    return read_package(path)


def attach_envelope(package: Package, envelope: bytes, out: Path | None = None) -> Package:
    """Write the package again with this envelope in place of any other; by default over itself.

    Blobs are checked against their digests while they are copied. On any error the file that was
    at ``out`` is still there.
    """
    if len(envelope) > canonical.MAX_DOCUMENT_BYTES:
        raise PackageError(f"the envelope is {len(envelope)} bytes, over 4 MiB")
    out = out or package.path
    with Archive(package.path) as archive:
        index = archive.parse(oci.ImageIndex.from_bytes, archive.index.digest, "the package index")
        bare = layout.unsigned(index)
        if layout.digest_of(bare.to_bytes()) != package.digest:
            raise PackageError(f"{package.path} is not the package that was read before")
        content = Blob.of(envelope)
        manifest = Blob.of(
            layout.signature_manifest(layout.envelope_descriptor(content)).to_bytes()
        )
        lines = (*bare.manifests, layout.signature_descriptor(manifest))
        signed = Blob.of(replace(bare, manifests=lines).to_bytes())
        kept = {digest for target in package.targets for digest in target.sizes}
        blobs = [archive.blob(digest) for digest in sorted(kept)]
        layout.write_layout(out, signed, [*blobs, manifest, Blob.of(oci.EMPTY), content])
    return replace(package, path=out, envelope=envelope)


def _check_names(name: str, version: str, models: Sequence[TargetContent]) -> None:
    if not is_name(name):
        raise ConfigError(f"{name!r} is not a package name", f"A name is {NAME_RULE}")
    try:
        parse_version(version)
    except ValueError as error:
        raise ConfigError(str(error), "For example: --version 1.0.0") from error
    targets = [content.target.name for content in models]
    if not 1 <= len(targets) <= layout.MAX_TARGETS:
        raise PackageError(f"a package has 1 to {layout.MAX_TARGETS} targets, not {len(targets)}")
    for target in targets:
        if targets.count(target) > 1:
            raise PackageError(f"target {target} is there twice")


def _target_blobs(name: str, version: str, content: TargetContent) -> tuple[Blob, list[Blob]]:
    """The manifest of one target, and the blobs that it refers to."""
    model = metadata.build(
        name=name,
        version=version,
        target=content.target,
        inputs=content.inputs,
        outputs=content.outputs,
        arena_bytes=content.arena_bytes,
        weights_bytes=len(content.weights),
        code_bytes=content.code_bytes,
        calls=content.calls,
        tolerance=content.golden.tolerance,
        vectors=len(content.golden.inputs),
        check=content.check,
        source=content.source,
        tools=content.tools,
        baseline=content.baseline,
    )
    parts = {
        "worker": Blob.of(content.worker),
        "weights": Blob.of(content.weights),
        "metadata": Blob.of(model),
        "golden": Blob.of(golden.encode(content.golden, content.inputs, content.outputs)),
    }
    layers = layout.layer_descriptors(parts)
    labels = layout.image_labels(name, version, content.target.name)
    config = Blob.of(oci.image_config(content.target.arch, labels, layers))
    manifest = layout.target_manifest(content.target.name, config, layers)
    return Blob.of(manifest.to_bytes()), [config, *parts.values()]

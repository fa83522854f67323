"""What a signature says: an in-toto Statement v1 that carries every digest of a package.

    {"_type":"https://in-toto.io/Statement/v1",
     "predicate":{"name":"mobilenet","targets":{"raspberrypi4":{"config":"<hex>","golden":"<hex>",
       "manifest":"<hex>","metadata":"<hex>","sizes":{"<hex>":81920,…},"weights":"<hex>",
       "worker":"<hex>"}},"version":"1.2.0"},
     "predicateType":"urn:edgepack:package:v1",
     "subject":[{"digest":{"sha256":"<hex>"},"name":"package"},
       {"digest":{"sha256":"<hex>"},"name":"raspberrypi4/manifest"}, … config, worker, weights,
       metadata, golden; then the next target in the package's order]}

As canonical JSON there is exactly one statement for a package.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgepack import canonical
from edgepack.artefacts import Package, PackagedTarget
from edgepack.errors import TrustError
from edgepack.naming import is_name, parse_version

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:edgepack:package:v1"
PARTS = ("manifest", "config", "worker", "weights", "metadata", "golden")
"""The blobs of a target, in the order of the subjects."""

MAX_TARGETS = 64
MAX_BLOB_BYTES = 2**33 - 1
"""Just under 8 GiB, what a tar header can state."""


@dataclass(frozen=True, kw_only=True)
class TargetStatement:
    """One target's blobs: hex digest by part (see PARTS), size in bytes by hex digest."""

    name: str
    digests: dict[str, str]
    sizes: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Statement:
    """Name, version and contents of a package. Digests are 64 hex digits."""

    name: str
    version: str
    package: str
    targets: tuple[TargetStatement, ...]

    @classmethod
    def of(cls, package: Package) -> Statement:
        """The statement about this package."""
        return cls(
            name=package.name,
            version=package.version,
            package=_hex(package.digest),
            targets=tuple(_about(target) for target in package.targets),
        )

    def to_bytes(self) -> bytes:
        """The payload that is signed."""
        targets = {
            target.name: {**target.digests, "sizes": target.sizes} for target in self.targets
        }
        return canonical.encode(
            {
                "_type": STATEMENT_TYPE,
                "predicateType": PREDICATE_TYPE,
                "predicate": {"name": self.name, "version": self.version, "targets": targets},
                "subject": self._subject(),
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Statement:
        """The inverse of to_bytes.

        Raises:
            TrustError: Anything else, an unknown key included (check ``statement``).
        """
        try:
            return _parse(data)
        except canonical.MalformedError as error:
            raise TrustError(f"what was signed is malformed: {error}", check="statement") from error

    def difference(self, package: Package) -> str:
        """The first thing in which the package is not what is stated, or nothing."""
        real = Statement.of(package)
        if self == real:
            return ""
        for what, stated, actual in (
            ("name", self.name, real.name),
            ("version", self.version, real.version),
            ("targets", _names(self), _names(real)),
        ):
            if stated != actual:
                return f"{what}: signed was {stated}, the package has {actual}"
        for signed, found in zip(self.targets, real.targets, strict=True):
            for part in PARTS:
                if signed.digests[part] != found.digests[part]:
                    return (
                        f"{found.name}/{part}: signed was {signed.digests[part][:16]},"
                        f" the package has {found.digests[part][:16]}"
                    )
            if signed.sizes != found.sizes:
                return f"{found.name}: the sizes are not those that were signed"
        return f"package: signed was {self.package[:16]}, the package is {real.package[:16]}"

    def _subject(self) -> list[dict[str, Any]]:
        subjects = [("package", self.package)]
        for target in self.targets:
            subjects += [(f"{target.name}/{part}", target.digests[part]) for part in PARTS]
        return [{"name": name, "digest": {"sha256": digest}} for name, digest in subjects]


def _about(target: PackagedTarget) -> TargetStatement:
    return TargetStatement(
        name=target.name,
        digests={part: _hex(getattr(target, part)) for part in PARTS},
        sizes={_hex(digest): size for digest, size in target.sizes.items()},
    )


def _parse(data: bytes) -> Statement:
    where = "the statement"
    keys = ("_type", "predicateType", "predicate", "subject")
    values = canonical.members(canonical.decode(data, where), where, keys)
    for key, expected in (("_type", STATEMENT_TYPE), ("predicateType", PREDICATE_TYPE)):
        if values[key] != expected:
            raise canonical.MalformedError(f"{where}.{key} is not {expected}")
    subjects = _parse_subjects(values["subject"], f"{where}.subject")
    predicate = canonical.members(
        values["predicate"], f"{where}.predicate", ("name", "version", "targets")
    )
    name = canonical.text(predicate["name"], f"{where}.predicate.name")
    version = canonical.text(predicate["version"], f"{where}.predicate.version")
    _check_names(name, version, where)
    targets = canonical.mapping(predicate["targets"], f"{where}.predicate.targets")
    order = dict.fromkeys(subject.split("/")[0] for subject in subjects if "/" in subject)
    statement = Statement(
        name=name,
        version=version,
        package=subjects.get("package", ""),
        targets=tuple(
            _parse_target(target, targets.get(target), f"{where}.predicate.targets.{target}")
            for target in order
        ),
    )
    if not targets or statement.to_bytes() != data:
        raise canonical.MalformedError(f"{where}.subject does not agree with its predicate")
    return statement


def _parse_subjects(value: object, where: str) -> dict[str, str]:
    subjects = {}
    for i, entry in enumerate(canonical.items(value, where, 1 + MAX_TARGETS * len(PARTS))):
        subject = canonical.members(entry, f"{where}[{i}]", ("name", "digest"))
        digest = canonical.members(subject["digest"], f"{where}[{i}].digest", ("sha256",))
        name = canonical.text(subject["name"], f"{where}[{i}].name")
        subjects[name] = canonical.hexadecimal(digest["sha256"], f"{where}[{i}].digest.sha256")
    return subjects


def _parse_target(name: str, value: object, where: str) -> TargetStatement:
    values = canonical.members(value, where, (*PARTS, "sizes"))
    sizes = canonical.mapping(values["sizes"], f"{where}.sizes")
    for digest, size in sizes.items():
        canonical.hexadecimal(digest, f"{where}.sizes")
        canonical.integer(size, f"{where}.sizes.{digest}", 0, MAX_BLOB_BYTES)
    digests = {part: canonical.hexadecimal(values[part], f"{where}.{part}") for part in PARTS}
    if not is_name(name) or set(sizes) != set(digests.values()):
        raise canonical.MalformedError(f"{where} does not give exactly the sizes of its blobs")
    return TargetStatement(name=name, digests=digests, sizes=sizes)


def _check_names(name: str, version: str, where: str) -> None:
    if not is_name(name):
        raise canonical.MalformedError(f"{where}.predicate.name is not a package name")
    try:
        parse_version(version)
    except ValueError as error:
        raise canonical.MalformedError(f"{where}.predicate.version: {error}") from error


def _names(statement: Statement) -> str:
    return ", ".join(target.name for target in statement.targets)


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")

"""Verifying a package: the only way to a SignedPackage.

The device's agent makes the same checks, on its own, in the same order, and names them alike:

    package    the file is a well-formed package                       read_package (PackageError)
    digest     every blob has the digest it is called by               read_package
    signature  it is signed, the envelope is sound, and no signature
               by a trusted key is wrong                               here
    key        at least one trusted key signed                         here
    statement  what was signed is exactly what the package holds       here
    version    it is not older than what was there before              here
"""

from __future__ import annotations

from collections.abc import Sequence

from edgepack.artefacts import Package, SignedPackage
from edgepack.errors import TrustError
from edgepack.naming import parse_version as parse
from edgepack.trust.envelope import Envelope
from edgepack.trust.keys import PublicKey
from edgepack.trust.statement import Statement


def verify(
    package: Package, keys: Sequence[PublicKey], *, floor: str | None = None
) -> SignedPackage:
    """Check the signatures of a package that read_package has read.

    Without keys everything is checked but who signed it: the result is then not ``trusted``, and its
    ``key_ids`` are only what the envelope claims. ``floor`` is the lowest version to accept.

    Raises:
        TrustError: A check failed; its ``check`` names it.
    """
    if package.envelope is None:
        raise TrustError(
            f"{package.path} is not signed",
            f"Sign it: edgepack sign {package.path} --key NAME.key",
            check="signature",
        )
    try:
        envelope = Envelope.from_bytes(package.envelope)
        key_ids = envelope.key_ids
        if keys:
            key_ids = envelope.verify(keys)
        difference = Statement.from_bytes(envelope.payload).difference(package)
    except TrustError as error:
        raise TrustError(
            f"{package.path}: {error.message}", error.hint, check=error.check
        ) from error
    if difference:
        raise TrustError(
            f"{package.path} is not what was signed ({difference})",
            "Sign it again if the change is yours; otherwise get it from where it was signed",
            check="statement",
        )
    if floor is not None and parse_version(package.version) < parse_version(floor):
        raise TrustError(
            f"{package.path} is version {package.version}, lower than {floor}",
            "Give the new package a higher version, or roll the device back: edgepack device rollback",
            check="version",
        )
    return SignedPackage(package=package, key_ids=key_ids, trusted=bool(keys))


def parse_version(text: str) -> tuple[int, int, int]:
    """A version as numbers that compare; a TrustError (check ``version``) where it is not one."""
    try:
        return parse(text)
    except ValueError as error:
        raise TrustError(str(error), check="version") from error

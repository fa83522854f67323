"""Signing a package: the envelope that package.attach_envelope then writes into it."""

from __future__ import annotations

from edgepack.artefacts import Package
from edgepack.errors import TrustError
from edgepack.trust.envelope import Envelope
from edgepack.trust.keys import PrivateKey
from edgepack.trust.statement import Statement


def sign(package: Package, key: PrivateKey) -> bytes:
    """The package's envelope with this key's signature added to those that are there.

    Signing again with the same key gives the same envelope.

    Raises:
        TrustError: The package has an envelope that is malformed or about another package, so that
            its signatures cannot be kept.
    """
    payload = Statement.of(package).to_bytes()
    envelope = Envelope(payload=payload, signatures=())
    if package.envelope is not None:
        envelope = Envelope.from_bytes(package.envelope)
        if envelope.payload != payload:
            difference = Statement.from_bytes(envelope.payload).difference(package)
            raise TrustError(
                f"{package.path}: its signature is about something else ({difference})",
                "Compile the package again, then sign it",
                check="statement",
            )
    return envelope.with_signature(key).to_bytes()

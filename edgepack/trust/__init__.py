"""Who made a package, and whether it is what they made: keys, DSSE envelopes, in-toto statements.

sign    Package + private key → envelope
verify  Package + public keys → SignedPackage, or a TrustError that names the check
"""

from __future__ import annotations

from edgepack.trust.envelope import Envelope, pae
from edgepack.trust.keys import (
    KINDS,
    PrivateKey,
    PublicKey,
    load_private,
    load_public,
    new_key,
    write_key_pair,
)
from edgepack.trust.sign import sign
from edgepack.trust.statement import Statement
from edgepack.trust.verify import parse_version, verify

__all__ = [
    "KINDS",
    "Envelope",
    "PrivateKey",
    "PublicKey",
    "Statement",
    "load_private",
    "load_public",
    "new_key",
    "pae",
    "parse_version",
    "sign",
    "verify",
    "write_key_pair",
]

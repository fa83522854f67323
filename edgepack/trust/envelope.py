"""DSSE envelopes: a payload, what it is, and signatures over both.

Dead Simple Signing Envelope 1.0 (github.com/secure-systems-lab/dsse), written as canonical JSON:

    {"payload":"<base64>","payloadType":"application/vnd.in-toto+json",
     "signatures":[{"keyid":"<sha256 of the public key, hex>","sig":"<base64>"}]}

What is signed is not the JSON but the pre-authentication encoding (PAE) of type and payload:

    DSSEv1 SP len(type) SP type SP len(payload) SP payload        lengths in decimal ASCII
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass

from edgepack import canonical
from edgepack.errors import TrustError
from edgepack.trust.keys import PrivateKey, PublicKey

PAYLOAD_TYPE = "application/vnd.in-toto+json"
MAX_SIGNATURES = 16
MAX_SIGNATURE_TEXT = 512
"""Characters of base64."""


def pae(payload_type: str, payload: bytes) -> bytes:
    """The bytes that a signature covers."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


@dataclass(frozen=True, kw_only=True)
class Signature:
    """One signature and the id of the key that made it."""

    key_id: str
    value: bytes


@dataclass(frozen=True, kw_only=True)
class Envelope:
    """A payload with its signatures, in the order in which they were added."""

    payload: bytes
    signatures: tuple[Signature, ...]
    payload_type: str = PAYLOAD_TYPE

    @property
    def key_ids(self) -> tuple[str, ...]:
        """Ids of the keys that are said to have signed, each once."""
        return tuple(dict.fromkeys(signature.key_id for signature in self.signatures))

    def to_bytes(self) -> bytes:
        """The envelope's canonical JSON."""
        signatures = [
            {"keyid": signature.key_id, "sig": base64.b64encode(signature.value).decode()}
            for signature in self.signatures
        ]
        return canonical.encode(
            {
                "payload": base64.b64encode(self.payload).decode(),
                "payloadType": self.payload_type,
                "signatures": signatures,
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Envelope:
        """The inverse of to_bytes.

        Raises:
            TrustError: Anything else (check ``signature``).
        """
        try:
            return _parse(data)
        except canonical.MalformedError as error:
            raise TrustError(f"the signature is malformed: {error}", check="signature") from error

    def with_signature(self, key: PrivateKey) -> Envelope:
        """The same payload, signed by this key too; its former signature, if any, is replaced."""
        message = pae(self.payload_type, self.payload)
        new = Signature(key_id=key.public_key.key_id, value=key.sign(message))
        others = [signature for signature in self.signatures if signature.key_id != new.key_id]
        if len(others) == MAX_SIGNATURES:
            raise TrustError(f"there are {MAX_SIGNATURES} signatures already", check="signature")
        return Envelope(
            payload=self.payload, signatures=(*others, new), payload_type=self.payload_type
        )

    def verify(self, keys: Sequence[PublicKey]) -> tuple[str, ...]:
        """Ids of the given keys that signed the payload; signatures by other keys do not count.

        Raises:
            TrustError: A given key's signature is wrong (check ``signature``), or none of the given
                keys signed (check ``key``).
        """
        known = {key.key_id: key for key in keys}
        message = pae(self.payload_type, self.payload)
        signed = [signature for signature in self.signatures if signature.key_id in known]
        for signature in signed:
            if not known[signature.key_id].verifies(signature.value, message):
                raise TrustError(
                    f"the signature of key {signature.key_id[:16]} is wrong: the package was"
                    " changed after it was signed, or the signature is not its own",
                    "Get the package again from where it was signed",
                    check="signature",
                )
        if not signed:
            ids = ", ".join(signature.key_id[:16] for signature in self.signatures)
            raise TrustError(
                f"no trusted key signed this: the signatures are by {ids}, trusted are"
                f" {', '.join(key_id[:16] for key_id in known)}",
                "Sign it with a trusted key, or trust the key that signed it (NAME.pub)",
                check="key",
            )
        return tuple(dict.fromkeys(signature.key_id for signature in signed))


def _parse(data: bytes) -> Envelope:
    where = "the envelope"
    values = canonical.members(
        canonical.decode(data, where), where, ("payload", "payloadType", "signatures")
    )
    kind = canonical.text(values["payloadType"], f"{where}.payloadType")
    if kind != PAYLOAD_TYPE:
        raise canonical.MalformedError(f"{where}.payloadType is {kind[:80]!r}")
    entries = canonical.items(values["signatures"], f"{where}.signatures", MAX_SIGNATURES)
    if not entries:
        raise canonical.MalformedError(f"{where} has no signature")
    signatures = tuple(
        _signature(entry, f"{where}.signatures[{i}]") for i, entry in enumerate(entries)
    )
    payload = _base64(values["payload"], f"{where}.payload", canonical.MAX_DOCUMENT_BYTES)
    return Envelope(payload=payload, signatures=signatures, payload_type=kind)


def _signature(value: object, where: str) -> Signature:
    entry = canonical.members(value, where, ("keyid", "sig"))
    return Signature(
        key_id=canonical.hexadecimal(entry["keyid"], f"{where}.keyid"),
        value=_base64(entry["sig"], f"{where}.sig", MAX_SIGNATURE_TEXT),
    )


def _base64(value: object, where: str, most: int) -> bytes:
    text = canonical.text(value, where)
    if not 1 <= len(text) <= most:
        raise canonical.MalformedError(f"{where} has not 1 to {most} characters")
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise canonical.MalformedError(f"{where} is not base64") from error
    if base64.b64encode(data).decode() != text:
        raise canonical.MalformedError(f"{where} is not canonical base64")
    return data

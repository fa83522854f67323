"""Signing keys: ECDSA on P-256 or Ed25519, in PEM files that other tools read too.

``NAME.key`` is a private key (PKCS#8, RFC 5958; not encrypted, readable by its owner only), and
``NAME.pub`` its public key (SubjectPublicKeyInfo: RFC 5480 for P-256, with the uncompressed point;
RFC 8410 for Ed25519). OpenSSL writes and reads the same files:

    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out release.key
    openssl pkey -in release.key -pubout -out release.pub

A key's id is the SHA-256 of the DER of its SubjectPublicKeyInfo, as 64 hex digits. ECDSA signatures
are DER (RFC 3279) over SHA-256 with the deterministic nonce of RFC 6979; Ed25519 is RFC 8032. So
both kinds give the same signature for the same payload every time.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgepack.errors import TrustError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

KINDS = ("ecdsa-p256", "ed25519")

_MAX_FILE_BYTES = 64 * 1024
_NEW_KEY = "Make a key that edgepack takes: edgepack keys new NAME.key"


@dataclass(frozen=True)
class PublicKey:
    """A key that signatures are checked with."""

    handle: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey

    @property
    def kind(self) -> str:
        """One of KINDS."""
        return _kind(self.handle)

    @property
    def key_id(self) -> str:
        """SHA-256 of ``der``, as hex."""
        return hashlib.sha256(self.der).hexdigest()

    @property
    def der(self) -> bytes:
        """SubjectPublicKeyInfo in DER."""
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        return self.handle.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def to_pem(self) -> bytes:
        """What stands in NAME.pub."""
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        return self.handle.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether the signature is this key's over the message."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec

        try:
            if isinstance(self.handle, ec.EllipticCurvePublicKey):
                self.handle.verify(signature, message, ec.ECDSA(hashes.SHA256()))
            else:
                self.handle.verify(signature, message)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True)
class PrivateKey:
    """A key that signs."""

    handle: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

    @property
    def kind(self) -> str:
        """One of KINDS."""
        return self.public_key.kind

    @property
    def public_key(self) -> PublicKey:
        """The key that checks what this one signs."""
        return PublicKey(self.handle.public_key())

    def sign(self, message: bytes) -> bytes:
        """The signature over the message; always the same one."""
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec

        if isinstance(self.handle, ec.EllipticCurvePrivateKey):
            return self.handle.sign(message, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
        return self.handle.sign(message)

    def to_pem(self) -> bytes:
        """What stands in NAME.key: PKCS#8, not encrypted."""
        from cryptography.hazmat.primitives.serialization import (
            Encoding,
            NoEncryption,
            PrivateFormat,
        )

        return self.handle.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def new_key(kind: str = "ecdsa-p256") -> PrivateKey:
    """A fresh key out of the system's random numbers."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    if kind == "ecdsa-p256":
        return PrivateKey(ec.generate_private_key(ec.SECP256R1()))
    if kind == "ed25519":
        return PrivateKey(ed25519.Ed25519PrivateKey.generate())
    raise _refuse(f"{kind!r} is not a kind of key", f"Kinds: {', '.join(KINDS)}")


def load_private(path: Path) -> PrivateKey:
    """Read NAME.key.

    Raises:
        TrustError: It cannot be read, is encrypted, or is of a kind that is not supported.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    data = _read(path)
    if b"PUBLIC KEY" in data:
        raise _refuse(f"{path} is a public key", "Sign with the private one, NAME.key")
    try:
        handle = load_pem_private_key(data, None)
    except TypeError as error:
        raise _refuse(
            f"{path} is encrypted",
            f"Take the passphrase off first: openssl pkcs8 -topk8 -nocrypt -in {path} -out NAME.key",
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _refuse(f"{path} is not a private key in PEM", _NEW_KEY) from error
    if not isinstance(handle, ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey):
        raise _unsupported(path, handle)
    if isinstance(handle, ec.EllipticCurvePrivateKey) and handle.curve.name != "secp256r1":
        raise _unsupported(path, handle.curve)
    return PrivateKey(handle)


def load_public(path: Path) -> PublicKey:
    """Read NAME.pub.

    Raises:
        TrustError: It cannot be read, or is of a kind that is not supported.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    data = _read(path)
    if b"PRIVATE KEY" in data:
        raise _refuse(
            f"{path} is a private key, which belongs to the signer alone",
            "Give the public one, NAME.pub",
        )
    try:
        handle = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _refuse(f"{path} is not a public key in PEM", _NEW_KEY) from error
    if not isinstance(handle, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey):
        raise _unsupported(path, handle)
    if isinstance(handle, ec.EllipticCurvePublicKey) and handle.curve.name != "secp256r1":
        raise _unsupported(path, handle.curve)
    key = PublicKey(handle)
    if _pem_body(data) != key.der:
        raise _refuse(
            f"{path} holds the key in another encoding than the plain one, or more than the key",
            f"Write it anew: openssl pkey -pubin -in {path} -ec_conv_form uncompressed -pubout",
        )
    return key


def write_key_pair(key: PrivateKey, path: Path) -> Path:
    """Write the private key to ``path`` (NAME.key, mode 0600) and the public one beside it.

    Returns the public key's path, NAME.pub. No existing file is replaced.

    Raises:
        TrustError: One of the files is there already, or cannot be written.
    """
    if path.suffix != ".key":
        raise _refuse(
            f"{path} does not end in .key", f"edgepack keys new {path.with_suffix('.key')}"
        )
    public = path.with_suffix(".pub")
    for file in (path, public):
        if os.path.lexists(file):
            raise _refuse(
                f"{file} is there already", "Choose another name, or move the old key away"
            )
    written: list[Path] = []
    try:
        for file, data, mode in (
            (path, key.to_pem(), 0o600),
            (public, key.public_key.to_pem(), 0o644),
        ):
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            written.append(file)
            with open(descriptor, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
    except OSError as error:
        for file in written:
            with contextlib.suppress(OSError):
                file.unlink()
        raise _refuse(f"cannot write {file}: {error.strerror or error}", "") from error
    return public


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            data = stream.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise _refuse(f"cannot read the key {path}: {error.strerror or error}", _NEW_KEY) from error
    if len(data) > _MAX_FILE_BYTES:
        raise _refuse(f"{path} is too large to be a key", _NEW_KEY)
    return data


def _pem_body(data: bytes) -> bytes:
    lines = [line.strip() for line in data.strip().splitlines()]
    try:
        return base64.b64decode(b"".join(lines[1:-1]), validate=True)
    except ValueError:
        return b""


def _kind(handle: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec

    return "ecdsa-p256" if isinstance(handle, ec.EllipticCurvePublicKey) else "ed25519"


def _unsupported(path: Path, handle: object) -> TrustError:
    kind = getattr(handle, "name", None) or type(handle).__name__.lstrip("_")
    kind = kind.removesuffix("PrivateKey").removesuffix("PublicKey")
    return _refuse(
        f"{path} is a key of an unsupported kind ({kind}); supported are {' and '.join(KINDS)}",
        _NEW_KEY,
    )


def _refuse(message: str, hint: str) -> TrustError:
    return TrustError(message, hint, check="key")

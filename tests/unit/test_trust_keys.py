from __future__ import annotations

import hashlib
import os
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from edgepack.errors import TrustError
from edgepack.trust import (
    KINDS,
    PrivateKey,
    load_private,
    load_public,
    new_key,
    write_key_pair,
)

Foreign = rsa.RSAPrivateKey | dsa.DSAPrivateKey | ec.EllipticCurvePrivateKey | ed448.Ed448PrivateKey


def private_pem(key: Foreign, encryption: bytes = b"") -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(encryption)
        if encryption
        else serialization.NoEncryption(),
    )


def public_pem(key: Foreign) -> bytes:
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def refused(load: object, path: Path, words: str) -> None:
    assert callable(load)
    with pytest.raises(TrustError, match=words) as caught:
        load(path)
    assert (caught.value.check, caught.value.exit_code) == ("key", 8)
    assert str(path) in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("kind", KINDS)
def test_a_pair_is_written_and_read_back(tmp_path: Path, kind: str) -> None:
    key = new_key(kind)
    public = write_key_pair(key, tmp_path / "release.key")
    assert public == tmp_path / "release.pub"
    assert stat.S_IMODE((tmp_path / "release.key").stat().st_mode) == 0o600
    again = load_private(tmp_path / "release.key")
    assert again.kind == load_public(public).kind == kind
    assert again.public_key.key_id == load_public(public).key_id == key.public_key.key_id
    assert load_public(public).verifies(again.sign(b"message"), b"message")


def test_the_private_key_is_closed_to_others_whatever_the_umask(tmp_path: Path) -> None:
    old_mask = os.umask(0)
    try:
        write_key_pair(new_key(), tmp_path / "a.key")
    finally:
        os.umask(old_mask)
    assert stat.S_IMODE((tmp_path / "a.key").stat().st_mode) == 0o600


@pytest.mark.parametrize("kind", KINDS)
def test_the_id_is_the_digest_of_the_subject_public_key_info(kind: str) -> None:
    key = new_key(kind).public_key
    der = subprocess.run(
        ["openssl", "pkey", "-pubin", "-outform", "DER"],
        input=key.to_pem(),
        capture_output=True,
        check=True,
    ).stdout
    assert key.key_id == hashlib.sha256(der).hexdigest()


@pytest.mark.parametrize("kind", KINDS)
def test_openssl_verifies_what_was_signed(tmp_path: Path, kind: str) -> None:
    key = new_key(kind)
    write_key_pair(key, tmp_path / "a.key")
    (tmp_path / "message").write_bytes(b"message")
    (tmp_path / "signature").write_bytes(key.sign(b"message"))
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", "a.pub", "-rawin"]
    command += ["-in", "message", "-sigfile", "signature"]
    command += ["-digest", "sha256"] if kind == "ecdsa-p256" else []
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "Verified Successfully" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        (["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"], "ecdsa-p256"),
        (["-algorithm", "ED25519"], "ed25519"),
    ],
)
def test_keys_that_openssl_made_are_taken(tmp_path: Path, arguments: list[str], kind: str) -> None:
    for command in (
        ["genpkey", *arguments, "-out", "a.key"],
        ["pkey", "-in", "a.key", "-pubout", "-out", "a.pub"],
    ):
        subprocess.run(["openssl", *command], cwd=tmp_path, capture_output=True, check=True)
    key = load_private(tmp_path / "a.key")
    assert key.kind == kind
    assert key.public_key.key_id == load_public(tmp_path / "a.pub").key_id


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_message_gives_the_same_signature(kind: str) -> None:
    key = new_key(kind)
    assert key.sign(b"message") == key.sign(b"message") != key.sign(b"massage")


def test_ecdsa_takes_its_nonce_from_rfc_6979() -> None:
    # RFC 6979, A.2.5: ECDSA, P-256, SHA-256, message "sample".
    d = 0xC9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721
    key = PrivateKey(ec.derive_private_key(d, ec.SECP256R1()))
    assert decode_dss_signature(key.sign(b"sample")) == (
        0xEFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716,
        0xF7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8,
    )


def test_ed25519_signs_as_rfc_8032_says() -> None:
    # RFC 8032, 7.1, test 1: the empty message.
    seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    key = PrivateKey(ed25519.Ed25519PrivateKey.from_private_bytes(seed))
    assert key.sign(b"").hex() == (
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555"
        "fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
    )


@pytest.mark.parametrize("kind", KINDS)
def test_every_bit_of_a_signature_counts(kind: str) -> None:
    key = new_key(kind)
    signature = key.sign(b"message")
    assert key.public_key.verifies(signature, b"message")
    assert not key.public_key.verifies(signature, b"massage")
    assert not new_key(kind).public_key.verifies(signature, b"message")
    for bad in (b"", signature[:-1], signature + b"\0", bytes(64), b"\x30\x06\x02\x01\0\x02\x01\0"):
        assert not key.public_key.verifies(bad, b"message")
    for i in range(len(signature) * 8):
        flipped = bytearray(signature)
        flipped[i // 8] ^= 1 << i % 8
        assert not key.public_key.verifies(bytes(flipped), b"message")


@pytest.mark.parametrize("existing", ["a.key", "a.pub"])
def test_no_key_is_overwritten(tmp_path: Path, existing: str) -> None:
    (tmp_path / existing).write_text("precious")
    refused(
        lambda path: write_key_pair(new_key(), tmp_path / "a.key"), tmp_path / existing, "already"
    )
    assert os.listdir(tmp_path) == [existing]
    assert (tmp_path / existing).read_text() == "precious"


def test_a_dangling_link_in_the_way_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "a.key").symlink_to(tmp_path / "elsewhere")
    refused(lambda path: write_key_pair(new_key(), path), tmp_path / "a.key", "already")
    assert not (tmp_path / "elsewhere").exists()


def test_a_pair_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = os.fsync, iter((False, True))

    def full_the_second_time(descriptor: int) -> None:
        if next(calls):
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full_the_second_time)
    with pytest.raises(TrustError, match=r"cannot write .*a\.pub: No space"):
        write_key_pair(new_key(), tmp_path / "a.key")
    assert os.listdir(tmp_path) == []


def test_a_private_key_is_called_key(tmp_path: Path) -> None:
    refused(
        lambda path: write_key_pair(new_key(), path), tmp_path / "a.pem", "does not end in .key"
    )


def test_an_unknown_kind_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(TrustError, match="'rsa' is not a kind") as caught:
        new_key("rsa")
    assert all(kind in caught.value.hint for kind in KINDS)


FOREIGN: dict[str, Foreign] = {
    "RSA": rsa.generate_private_key(65537, 2048),
    "DSA": dsa.generate_private_key(1024),
    "secp384r1": ec.generate_private_key(ec.SECP384R1()),
    "secp256k1": ec.generate_private_key(ec.SECP256K1()),
    "Ed448": ed448.Ed448PrivateKey.generate(),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_key_of_another_kind_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.key"
    path.write_bytes(private_pem(FOREIGN[kind]))
    refused(
        load_private, path, rf"unsupported kind \({kind}\); supported are ecdsa-p256 and ed25519"
    )
    path.write_bytes(public_pem(FOREIGN[kind]))
    refused(load_public, path, rf"unsupported kind \({kind}\)")


def test_an_encrypted_key_is_refused_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "a.key"
    path.write_bytes(private_pem(ec.generate_private_key(ec.SECP256R1()), b"secret"))
    refused(load_private, path, "is encrypted")


def test_a_private_key_given_as_public_and_the_other_way_round_are_told_apart(
    tmp_path: Path,
) -> None:
    public = write_key_pair(new_key(), tmp_path / "a.key")
    refused(load_public, tmp_path / "a.key", "is a private key")
    refused(load_private, public, "is a public key")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 100,
        b"hello",
        b"-----BEGIN PUBLIC KEY-----\n!!!!\n-----END PUBLIC KEY-----\n",
        b"-----BEGIN PRIVATE KEY-----\nMEECAQAwEw==\n-----END PRIVATE KEY-----\n",
        b"-----BEGIN CERTIFICATE-----\nMEECAQAwEw==\n-----END CERTIFICATE-----\n",
        b"x" * 100_000,
    ],
)
def test_a_file_that_is_no_key_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a"
    path.write_bytes(data)
    for load in (load_private, load_public):
        refused(load, path, "PEM|too large|is a p")


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    for load in (load_private, load_public):
        refused(load, tmp_path / "absent", "No such file")
        refused(load, tmp_path, "directory")


def test_a_truncated_key_is_refused_at_every_length(tmp_path: Path) -> None:
    for kind in KINDS:
        key = new_key(kind)
        for load, pem in ((load_private, key.to_pem()), (load_public, key.public_key.to_pem())):
            for length in range(len(pem) - 2):
                (tmp_path / "a").write_bytes(pem[:length])
                refused(load, tmp_path / "a", "PEM|too large|another encoding")


def test_a_public_key_in_another_encoding_has_another_id_and_is_refused(tmp_path: Path) -> None:
    handle = new_key().public_key.handle
    assert isinstance(handle, ec.EllipticCurvePublicKey)
    path = tmp_path / "a.pub"
    path.write_bytes(
        subprocess.run(
            ["openssl", "ec", "-pubin", "-conv_form", "compressed"],
            input=new_key().public_key.to_pem(),
            capture_output=True,
            check=True,
        ).stdout
    )
    refused(load_public, path, "another encoding")
    pem = new_key().public_key.to_pem()
    path.write_bytes(pem + pem)
    refused(load_public, path, "more than the key")
    path.write_bytes(pem.replace(b"\n", b"\r\n"))
    assert load_public(path).to_pem() == pem

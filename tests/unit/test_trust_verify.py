"""From a package to a SignedPackage, and every way there that must be closed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgepack.artefacts import Package
from edgepack.errors import TrustError
from edgepack.package import attach_envelope, read_package
from edgepack.trust import (
    KINDS,
    Envelope,
    PrivateKey,
    Statement,
    new_key,
    parse_version,
    sign,
    verify,
)
from tests.package_samples import content, encode, falsify, signed, write

KEY, OTHER = new_key(), new_key("ed25519")


@pytest.fixture
def package(tmp_path: Path) -> Package:
    return write(tmp_path / "a.epk", "raspberrypi4", "x86-64-v3")


def refused(
    package: Package, check: str, words: str | None = None, *, floor: str | None = None
) -> None:
    with pytest.raises(TrustError, match=words) as caught:
        verify(package, [KEY.public_key], floor=floor)
    assert caught.value.check == check
    assert str(package.path) in caught.value.message


def enveloped(package: Package, payload: bytes, *keys: PrivateKey) -> Package:
    """The package with any payload, really signed."""
    envelope = Envelope(payload=payload, signatures=())
    for key in keys or (KEY,):
        envelope = envelope.with_signature(key)
    return attach_envelope(package, envelope.to_bytes())


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_signed_is_verified(package: Package, kind: str) -> None:
    key = new_key(kind)
    again = read_package(signed(package, key).path)
    result = verify(again, [OTHER.public_key, key.public_key], floor="1.2.0")
    assert result.package == again
    assert result.key_ids == (key.public_key.key_id,)
    assert result.trusted


@pytest.mark.parametrize("kind", KINDS)
def test_signing_twice_gives_the_same_file(package: Package, kind: str) -> None:
    key = new_key(kind)
    once = signed(package, key).path.read_bytes()
    assert signed(read_package(package.path), key).path.read_bytes() == once
    assert signed(replace(package, envelope=None), key).path.read_bytes() == once


def test_a_second_signature_keeps_the_first(package: Package) -> None:
    both = read_package(signed(package, KEY, OTHER).path)
    ids = (KEY.public_key.key_id, OTHER.public_key.key_id)
    assert verify(both, [KEY.public_key, OTHER.public_key]).key_ids == ids
    assert verify(both, [OTHER.public_key]).key_ids == ids[1:]
    assert verify(both, []).key_ids == ids


def test_without_keys_everything_but_the_signer_is_checked(package: Package) -> None:
    result = verify(signed(package, KEY), [])
    assert (result.trusted, result.key_ids) == (False, (KEY.public_key.key_id,))
    with pytest.raises(TrustError):
        verify(package, [])
    with pytest.raises(TrustError) as caught:
        verify(enveloped(package, b"{}"), [])
    assert caught.value.check == "statement"
    with pytest.raises(TrustError) as caught:
        verify(signed(package, KEY), [], floor="1.2.1")
    assert caught.value.check == "version"


def test_an_unsigned_package_is_refused_with_the_command_to_type(package: Package) -> None:
    refused(package, "signature", "is not signed")
    with pytest.raises(TrustError) as caught:
        verify(package, [KEY.public_key])
    assert "edgepack sign" in caught.value.hint


def test_a_package_signed_by_someone_else_is_refused(package: Package) -> None:
    refused(signed(package, OTHER), "key", "no trusted key")


def test_a_lower_version_is_refused_and_the_same_is_not(package: Package) -> None:
    done = signed(package, KEY)
    for floor in ("0.0.0", "1.1.99", "1.2.0"):
        assert verify(done, [KEY.public_key], floor=floor).trusted
    for floor in ("1.2.1", "1.10.0", "2.0.0", "2147483647.0.0"):
        refused(done, "version", f"is version 1.2.0, lower than {floor}", floor=floor)


def test_a_floor_that_is_no_version_is_refused(package: Package) -> None:
    with pytest.raises(TrustError, match=r"'1\.2' is not a version") as caught:
        verify(signed(package, KEY), [KEY.public_key], floor="1.2")
    assert caught.value.check == "version"
    assert parse_version("1.10.0") > parse_version("1.9.0")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "other"}, "name: signed was other"),
        ({"version": "1.3.0"}, "version: signed was 1.3.0"),
        ({"weights": b"other weights"}, "raspberrypi4/manifest"),
    ],
)
def test_an_envelope_of_another_package_does_not_fit(
    package: Package, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    other = write(tmp_path / "b.epk", "raspberrypi4", "x86-64-v3", **changes)
    grafted = attach_envelope(package, sign(other, KEY))
    refused(read_package(grafted.path), "statement", words)


@pytest.mark.parametrize(
    "targets", [("raspberrypi4",), ("x86-64-v3", "raspberrypi4"), ("raspberrypi4", "x86-64-v2")]
)
def test_an_envelope_for_other_targets_does_not_fit(
    package: Package, tmp_path: Path, targets: tuple[str, ...]
) -> None:
    other = write(tmp_path / "b.epk", *targets)
    refused(attach_envelope(package, sign(other, KEY)), "statement", "targets: signed was")


def test_a_signature_copied_from_another_package_is_wrong(package: Package, tmp_path: Path) -> None:
    other = write(tmp_path / "b.epk", version="1.3.0")
    stolen = Envelope.from_bytes(sign(other, KEY)).signatures
    payload = Statement.of(package).to_bytes()
    forged = Envelope(payload=payload, signatures=stolen).to_bytes()
    refused(attach_envelope(package, forged), "signature", "is wrong")


def test_a_key_id_that_is_claimed_by_another_key_is_wrong(package: Package) -> None:
    envelope = Envelope.from_bytes(sign(package, OTHER))
    claimed = replace(envelope.signatures[0], key_id=KEY.public_key.key_id)
    forged = replace(envelope, signatures=(claimed,))
    refused(attach_envelope(package, forged.to_bytes()), "signature", "is wrong")


def test_contents_that_were_changed_and_packed_anew_are_refused(
    package: Package, tmp_path: Path
) -> None:
    envelope = sign(package, KEY)
    changed = write(tmp_path / "b.epk", "raspberrypi4", "x86-64-v3", worker=b"evil")
    refused(attach_envelope(changed, envelope), "statement", "raspberrypi4/manifest")


def test_a_document_falsified_with_right_digests_is_refused(
    package: Package, tmp_path: Path
) -> None:
    done = signed(package, KEY)
    bad = falsify(done.path, tmp_path / "b.epk", model=lambda m: m | {"arena_bytes": 1})
    refused(read_package(bad), "statement", "raspberrypi4/manifest")


def test_a_garbled_envelope_is_a_signature_error(package: Package) -> None:
    refused(attach_envelope(package, b"not json"), "signature", "malformed")
    refused(attach_envelope(package, b""), "signature", "malformed")


def statement(package: Package) -> dict[str, Any]:
    tree = json.loads(Statement.of(package).to_bytes())
    assert isinstance(tree, dict)
    return tree


def test_the_statement_is_the_documented_one(package: Package) -> None:
    tree = statement(package)
    assert encode(tree) == Statement.of(package).to_bytes()
    assert tree["_type"] == "https://in-toto.io/Statement/v1"
    assert tree["predicateType"] == "urn:edgepack:package:v1"
    parts = ("manifest", "config", "worker", "weights", "metadata", "golden")
    names = [f"{t.name}/{part}" for t in package.targets for part in parts]
    assert [subject["name"] for subject in tree["subject"]] == ["package", *names]
    assert tree["subject"][0]["digest"] == {"sha256": package.digest[7:]}
    assert tree["predicate"]["name"] == "demo"
    assert tree["predicate"]["version"] == "1.2.0"
    pi = tree["predicate"]["targets"]["raspberrypi4"]
    for i, part in enumerate(parts):
        assert "sha256:" + pi[part] == getattr(package.targets[0], part)
        assert tree["subject"][1 + i]["digest"] == {"sha256": pi[part]}
    assert pi["sizes"][pi["weights"]] == len(content().weights)
    assert Statement.from_bytes(Statement.of(package).to_bytes()) == Statement.of(package)


def _in_target(tree: dict[str, Any], **changes: Any) -> dict[str, Any]:
    target = tree["predicate"]["targets"]["raspberrypi4"] | changes
    targets = tree["predicate"]["targets"] | {"raspberrypi4": target}
    return tree | {"predicate": tree["predicate"] | {"targets": targets}}


FALSE_STATEMENTS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "unknown-key": lambda t: t | {"extra": 1},
    "unknown-predicate-key": lambda t: t | {"predicate": t["predicate"] | {"extra": 1}},
    "unknown-target-key": lambda t: _in_target(t, extra="0" * 64),
    "unknown-subject-key": lambda t: (
        t | {"subject": [t["subject"][0] | {"uri": "x"}, *t["subject"][1:]]}
    ),
    "type": lambda t: t | {"_type": "https://in-toto.io/Statement/v0.1"},
    "predicate-type": lambda t: t | {"predicateType": "https://slsa.dev/provenance/v1"},
    "no-subject": lambda t: t | {"subject": []},
    "subject-missing": lambda t: t | {"subject": t["subject"][:-1]},
    "subject-first-missing": lambda t: t | {"subject": t["subject"][1:]},
    "subject-twice": lambda t: t | {"subject": [*t["subject"], t["subject"][-1]]},
    "subject-more": lambda t: (
        t | {"subject": [*t["subject"], t["subject"][0] | {"name": "x/manifest"}]}
    ),
    "subject-order": lambda t: t | {"subject": [t["subject"][0], *t["subject"][:0:-1]]},
    "subject-other-digest": lambda t: (
        t | {"subject": [*t["subject"][:-1], t["subject"][-1] | {"digest": {"sha256": "0" * 64}}]}
    ),
    "subject-sha512": lambda t: (
        t | {"subject": [t["subject"][0] | {"digest": {"sha512": "0"}}, *t["subject"][1:]]}
    ),
    "subject-many": lambda t: t | {"subject": t["subject"] * 100},
    "no-targets": lambda t: t | {"predicate": t["predicate"] | {"targets": {}}},
    "targets-array": lambda t: t | {"predicate": t["predicate"] | {"targets": []}},
    "no-target-at-all": lambda t: (
        t | {"subject": t["subject"][:1], "predicate": t["predicate"] | {"targets": {}}}
    ),
    "target-null": lambda t: (
        t
        | {
            "predicate": t["predicate"]
            | {"targets": t["predicate"]["targets"] | {"raspberrypi4": None}}
        }
    ),
    "digest": lambda t: _in_target(t, weights="0" * 64),
    "digest-upper": lambda t: _in_target(t, weights="A" * 64),
    "sizes-missing": lambda t: _in_target(t, sizes={}),
    "sizes-more": lambda t: _in_target(t, sizes={"0" * 64: 1}),
    "name": lambda t: t | {"predicate": t["predicate"] | {"name": "../x"}},
    "name-number": lambda t: t | {"predicate": t["predicate"] | {"name": 1}},
    "version": lambda t: t | {"predicate": t["predicate"] | {"version": "1.2"}},
    "other-name": lambda t: t | {"predicate": t["predicate"] | {"name": "other"}},
    "other-version": lambda t: t | {"predicate": t["predicate"] | {"version": "9.0.0"}},
    "other-package": lambda t: (
        t | {"subject": [t["subject"][0] | {"digest": {"sha256": "0" * 64}}, *t["subject"][1:]]}
    ),
}


@pytest.mark.parametrize("case", FALSE_STATEMENTS)
def test_a_statement_that_says_anything_else_is_refused_though_it_is_signed(
    package: Package, case: str
) -> None:
    payload = encode(FALSE_STATEMENTS[case](statement(package)))
    refused(enveloped(package, payload), "statement")


@pytest.mark.parametrize("size", [0, -1, 2**33, True, 1.0, "1", None])
def test_a_size_that_is_not_the_blobs_is_refused(package: Package, size: object) -> None:
    tree = statement(package)
    target = tree["predicate"]["targets"]["raspberrypi4"]
    target["sizes"][target["weights"]] = size
    refused(enveloped(package, encode(tree)), "statement")


def test_duplicate_keys_and_other_spellings_of_the_same_are_refused(package: Package) -> None:
    good = Statement.of(package).to_bytes()
    name = b'"name":"demo"'
    for payload in (
        b"",
        b"{}",
        good + b"\n",
        b" " + good,
        good.replace(name, name + b"," + name),
        good.replace(name, b'"name":"evil",' + name),
        good.replace(b"demo", b"\\u0064emo"),
        json.dumps(json.loads(good)).encode(),
        b"[" + good + b"]",
    ):
        refused(enveloped(package, payload or b"0"), "statement")


def test_a_foreign_envelope_is_not_signed_over(package: Package, tmp_path: Path) -> None:
    other = write(tmp_path / "b.epk", version="1.3.0")
    grafted = attach_envelope(package, sign(other, OTHER))
    with pytest.raises(TrustError, match="about something else") as caught:
        sign(grafted, KEY)
    assert caught.value.check == "statement"
    with pytest.raises(TrustError, match="malformed") as caught:
        sign(attach_envelope(package, b"garbage"), KEY)
    assert caught.value.check == "signature"

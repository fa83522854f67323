from __future__ import annotations

import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from edgepack.errors import TrustError
from edgepack.trust import Envelope, PrivateKey, new_key, pae
from tests.package_samples import encode

KEY, OTHER = new_key(), new_key("ed25519")
UNSIGNED = Envelope(payload=b"{}", signatures=())
SIGNED = UNSIGNED.with_signature(KEY)


def test_the_pre_authentication_encoding_is_that_of_the_specification() -> None:
    # DSSE protocol 1.0.0, "Test Vectors".
    encoded = pae("http://example.com/HelloWorld", b"hello world")
    assert encoded == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    assert pae("é", b"\0\xff") == b"DSSEv1 2 \xc3\xa9 2 \0\xff"


def test_the_signature_is_that_of_the_specification() -> None:
    # The same test vector; its signature is r and s one after the other, ours is in DER.
    d = 97358161215184420915383655311931858321456579547487070936769975997791359926199
    key = PrivateKey(ec.derive_private_key(d, ec.SECP256R1()))
    envelope = Envelope(
        payload=b"hello world", signatures=(), payload_type="http://example.com/HelloWorld"
    ).with_signature(key)
    r, s = decode_dss_signature(envelope.signatures[0].value)
    assert base64.b64encode(r.to_bytes(32, "big") + s.to_bytes(32, "big")) == (
        b"A3JqsQGtVsJ2O2xqrI5IcnXip5GToJ3F+FnZ+O88SjtR6rDAajabZKciJTfUiHqJPcIAriEGAHTVeCUjW2JIZA=="
    )


def test_an_envelope_is_the_documented_json() -> None:
    data = json.loads(SIGNED.to_bytes())
    assert encode(data) == SIGNED.to_bytes()
    assert sorted(data) == ["payload", "payloadType", "signatures"]
    assert data["payloadType"] == "application/vnd.in-toto+json"
    assert base64.b64decode(data["payload"]) == b"{}"
    assert data["signatures"][0]["keyid"] == KEY.public_key.key_id
    assert Envelope.from_bytes(SIGNED.to_bytes()) == SIGNED


def test_a_second_key_adds_and_the_same_key_replaces() -> None:
    both = SIGNED.with_signature(OTHER)
    assert both.key_ids == (KEY.public_key.key_id, OTHER.public_key.key_id)
    assert both.with_signature(OTHER) == both
    assert set(both.with_signature(KEY).signatures) == set(both.signatures)
    assert both.verify([KEY.public_key]) == (KEY.public_key.key_id,)
    assert both.verify([OTHER.public_key, KEY.public_key]) == both.key_ids


def test_at_most_sixteen_keys_sign() -> None:
    envelope = UNSIGNED
    for _ in range(16):
        envelope = envelope.with_signature(new_key("ed25519"))
    assert len(Envelope.from_bytes(envelope.to_bytes()).signatures) == 16
    with pytest.raises(TrustError, match="16 signatures already"):
        envelope.with_signature(KEY)


def test_a_signature_by_an_unknown_key_does_not_count() -> None:
    with pytest.raises(TrustError, match="no trusted key") as caught:
        SIGNED.verify([OTHER.public_key])
    assert caught.value.check == "key"


def test_a_wrong_signature_of_a_known_key_condemns_the_whole() -> None:
    both = SIGNED.with_signature(OTHER)
    forged = Envelope(payload=b"[]", signatures=both.signatures)
    half = Envelope(
        payload=b"[]",
        signatures=(both.signatures[0], *forged.with_signature(OTHER).signatures[-1:]),
    )
    for envelope in (forged, half):
        with pytest.raises(TrustError) as caught:
            envelope.verify([KEY.public_key, OTHER.public_key])
        assert caught.value.check == "signature"
    assert half.verify([OTHER.public_key]) == (OTHER.public_key.key_id,)


def test_the_payload_type_is_signed_too() -> None:
    typed = Envelope(payload=b"{}", signatures=(), payload_type="text/plain").with_signature(KEY)
    moved = Envelope(payload=b"{}", signatures=typed.signatures)
    with pytest.raises(TrustError) as caught:
        moved.verify([KEY.public_key])
    assert caught.value.check == "signature"


GOOD = SIGNED.to_bytes()
TREE = json.loads(GOOD)
LINE = TREE["signatures"][0]
TWO = encode(TREE | {"signatures": [LINE, LINE]})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        GOOD + b"\n",
        b" " + GOOD,
        json.dumps(TREE).encode(),
        GOOD.replace(b'"payload":', b'"payload":"","payload":'),
        encode(TREE | {"extra": 1}),
        encode({key: TREE[key] for key in TREE if key != "payload"}),
        encode(TREE | {"payload": 1}),
        encode(TREE | {"payload": ""}),
        encode(TREE | {"payload": "e30"}),
        encode(TREE | {"payload": "e3 0="}),
        encode(TREE | {"payload": "e31="}),
        encode(TREE | {"payload": "é"}),
        encode(TREE | {"payloadType": "application/json"}),
        encode(TREE | {"payloadType": None}),
        encode(TREE | {"signatures": []}),
        encode(TREE | {"signatures": {}}),
        encode(TREE | {"signatures": [LINE] * 17}),
        encode(TREE | {"signatures": [1]}),
        encode(TREE | {"signatures": [LINE | {"cert": "x"}]}),
        encode(TREE | {"signatures": [{"sig": LINE["sig"]}]}),
        encode(TREE | {"signatures": [LINE | {"keyid": LINE["keyid"].upper()}]}),
        encode(TREE | {"signatures": [LINE | {"keyid": LINE["keyid"][:-1]}]}),
        encode(TREE | {"signatures": [LINE | {"sig": ""}]}),
        encode(TREE | {"signatures": [LINE | {"sig": "-_8="}]}),
        encode(TREE | {"signatures": [LINE | {"sig": "A" * 516}]}),
        encode(TREE | {"payload": "A" * (4 << 20)}),
    ],
)
def test_whatever_is_no_envelope_of_ours_is_a_signature_error(data: bytes) -> None:
    with pytest.raises(TrustError, match="malformed") as caught:
        Envelope.from_bytes(data)
    assert caught.value.check == "signature"


def test_the_same_key_twice_counts_once() -> None:
    envelope = Envelope.from_bytes(TWO)
    assert envelope.verify([KEY.public_key]) == envelope.key_ids == (KEY.public_key.key_id,)

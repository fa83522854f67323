from __future__ import annotations

import json
import math
from typing import Any

import pytest

from edgepack import canonical
from edgepack.canonical import MalformedError, decode, encode


def test_keys_are_sorted_at_every_depth_and_nothing_is_written_between() -> None:
    value = {"b": [1, {"d": None, "c": True}], "a": 'é\n"\\\x01\x7f/'}
    assert encode(value) == '{"a":"é\\n\\"\\\\\\u0001\x7f/","b":[1,{"c":true,"d":null}]}'.encode()


def test_the_example_of_rfc_8785_comes_out_the_same_but_for_its_numbers() -> None:
    # Section 3.2.3 and 3.2.4, with the numbers that both write alike.
    value = {
        "string": '€$\u000f\nA\'B"\\\\"/',
        "literals": [None, True, False],
        "numbers": [4.5, 0.002, 333333333.3333333],
    }
    expected = (
        r'{"literals":[null,true,false],"numbers":[4.5,0.002,333333333.3333333],'
        r'"string":"€$\u000f\nA' + "'" + r'B\"\\\\\"/"}'
    )
    assert encode(value) == expected.encode()


@pytest.mark.parametrize("value", [1e-7, 0.0001, 2.5e300, -0.0, 0.1 + 0.2, 5e-324])
def test_floats_read_back_as_the_same_number(value: float) -> None:
    again = decode(encode([value]), "it")[0]
    assert (again, math.copysign(1, again)) == (value, math.copysign(1, value))


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        math.inf,
        2**53,
        -(2**53),
        {"é": 1},
        {1: 2},
        {"a": {1, 2}},
        b"x",
        "\ud800",
        pytest.param(object(), id="object"),
    ],
    ids=repr,
)
def test_what_has_no_canonical_form_is_refused(value: object) -> None:
    with pytest.raises(MalformedError):
        encode([value])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a":1,"a":1}', "'a' is there twice"),
        ('{"b":1,"a":1}', "canonical"),
        ('{"a": 1}', "canonical"),
        ('{"a":1}\n', "canonical"),
        ('["\\u0041"]', "canonical"),
        ('["\\/"]', "canonical"),
        ("[1e2]", "canonical"),
        ("[-0]", "canonical"),
        ("[1.50]", "canonical"),
        ("[NaN]", "finite"),
        ("[-Infinity]", "finite"),
        ("[1e999]", "finite"),
        ("[9007199254740992]", "2\\^53"),
        ("[" + "9" * 5000 + "]", "not JSON"),
        ('["\\ud800"]', "Unicode"),
        ("\ufeff[]", "not JSON"),
        ("[01]", "not JSON"),
        ("[1,]", "not JSON"),
        ("", "not JSON"),
        ("[]x", "not JSON"),
        ("['a']", "not JSON"),
        ("[" * 33 + "]" * 33, "deep"),
        ("[" * 1_000_000, "deep"),
    ],
)
def test_whatever_is_not_in_canonical_form_is_refused(text: str, words: str) -> None:
    with pytest.raises(MalformedError, match=rf"^it.*{words}"):
        decode(text.encode(), "it")


def test_bytes_that_are_not_utf8_are_refused() -> None:
    with pytest.raises(MalformedError, match="it is not JSON"):
        decode(b'["\xff"]', "it")


def test_a_document_over_four_mebibytes_is_refused_before_it_is_parsed() -> None:
    fits = b'["' + b"x" * (canonical.MAX_DOCUMENT_BYTES - 4) + b'"]'
    assert len(decode(fits, "it")[0]) == canonical.MAX_DOCUMENT_BYTES - 4
    with pytest.raises(MalformedError, match="over 4194304"):
        decode(b"[" * (canonical.MAX_DOCUMENT_BYTES + 1), "it")


def test_the_deepest_document_is_32_levels() -> None:
    text = b"[" * 31 + b"1" + b"]" * 31
    assert encode(json.loads(text)) == text
    with pytest.raises(MalformedError, match="deep"):
        encode(json.loads(b"[" * 32 + b"1" + b"]" * 32))


@pytest.mark.parametrize(
    ("take", "value"),
    [
        (lambda value: canonical.members(value, "it", ("a",)), []),
        (lambda value: canonical.members(value, "it", ("a",)), {}),
        (lambda value: canonical.members(value, "it", ("a",), ("b",)), {"a": 1, "c": 1}),
        (lambda value: canonical.mapping(value, "it"), "x"),
        (lambda value: canonical.items(value, "it", 1), [1, 2]),
        (lambda value: canonical.items(value, "it", 1), {}),
        (lambda value: canonical.text(value, "it"), 1),
        (lambda value: canonical.texts(value, "it"), {"a": 1}),
        (lambda value: canonical.integer(value, "it"), True),
        (lambda value: canonical.integer(value, "it"), 1.0),
        (lambda value: canonical.integer(value, "it"), -1),
        (lambda value: canonical.integer(value, "it", 0, 5), 6),
        (lambda value: canonical.number(value, "it"), True),
        (lambda value: canonical.number(value, "it"), "1"),
        (lambda value: canonical.hexadecimal(value, "it"), "A" * 64),
        (lambda value: canonical.hexadecimal(value, "it"), "a" * 63),
        (lambda value: canonical.hexadecimal(value, "it"), "a" * 64 + "\n"),
    ],
)
def test_a_value_of_another_kind_is_refused_with_its_place(take: Any, value: object) -> None:
    with pytest.raises(MalformedError, match=r"^it"):
        take(value)

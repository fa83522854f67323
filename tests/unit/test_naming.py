from __future__ import annotations

import pytest

from edgepack.naming import is_name, parse_version


@pytest.mark.parametrize("name", ["a", "0", "mobilenet_v2", "a.b-c", "x" * 64])
def test_plain_names_are_names(name: str) -> None:
    assert is_name(name)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "-a", "_a", "A", "a b", "a/b", "a\n", "é", "a\0", "x" * 65, "a\u0660"]
)
def test_names_that_a_shell_path_or_url_could_trip_over_are_none(name: str) -> None:
    assert not is_name(name)


def test_versions_compare_as_numbers() -> None:
    ordered = ["0.0.0", "0.0.10", "0.2.0", "0.10.0", "1.9.9", "1.10.0", "2147483647.0.0"]
    assert sorted(ordered, key=parse_version) == ordered
    assert parse_version("1.10.2") == (1, 10, 2)


@pytest.mark.parametrize(
    "text",
    [
        *("", "1", "1.2", "1.2.3.4", "1.2.", "01.2.3", "1.02.3", "1.2.-3", "1.2.+3", "1.2.3 "),
        *("1.2.3\n", " 1.2.3", "v1.2.3", "1.2.3-rc1", "1.2.x", "1_0.0.0", "1.2.\u0663", "1..3"),
        *("2147483648.0.0", "0.0.99999999999999999999"),
    ],
)
def test_anything_else_is_no_version(text: str) -> None:
    with pytest.raises(ValueError, match="is not a version"):
        parse_version(text)

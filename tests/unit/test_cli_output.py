"""Tables and sizes, as people read them."""

from __future__ import annotations

import pytest

from edgepack.cli.output import byte_size, columns


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (123456, "121 KiB"),
        (10 * 2**20, "10 MiB"),
        (2**30, "1 GiB"),
        (5 * 2**40, "5120 GiB"),
    ],
)
def test_sizes_have_three_digits_and_a_unit(count: int, shown: str) -> None:
    assert byte_size(count) == shown


def test_columns_are_aligned_words_left_numbers_right() -> None:
    assert columns([("NAME", "N"), ("a", 1234), ("long name", 5)]) == (
        "NAME       N\na          1,234\nlong name      5"
    )


def test_a_table_without_rows_is_nothing() -> None:
    assert columns([]) == ""

from __future__ import annotations

from fractions import Fraction

import pytest

from edgepack.compiler.cook_toom import filtering


def apply(matrix: tuple[tuple[Fraction, ...], ...], values: list[Fraction]) -> list[Fraction]:
    return [sum((a * b for a, b in zip(row, values, strict=True)), Fraction()) for row in matrix]


SIZES = [(m, r) for m in range(1, 7) for r in range(1, 6) if m + r <= 10]


@pytest.mark.parametrize(("outputs", "taps"), SIZES)
def test_the_filtering_is_exact(outputs: int, taps: int) -> None:
    form = filtering(outputs, taps)
    data = [Fraction(3 * i * i + 7 * i - 5, i + 2) for i in range(form.inputs)]
    kernel = [Fraction(5 - 2 * i * i, 2 * i + 1) for i in range(taps)]
    products = [g * d for g, d in zip(apply(form.g, kernel), apply(form.bt, data), strict=True)]
    wanted = [sum(kernel[k] * data[o + k] for k in range(taps)) for o in range(outputs)]
    assert apply(form.at, products) == wanted


@pytest.mark.parametrize(("outputs", "taps"), SIZES)
def test_the_matrices_have_the_sizes_that_they_say(outputs: int, taps: int) -> None:
    form = filtering(outputs, taps)
    assert form.inputs == outputs + taps - 1
    assert [len(form.at), len(form.at[0])] == [outputs, form.inputs]
    assert [len(form.g), len(form.g[0])] == [form.inputs, taps]
    assert [len(form.bt), len(form.bt[0])] == [form.inputs, form.inputs]


@pytest.mark.parametrize(("outputs", "taps"), [(2, 3), (4, 3), (2, 5)])
def test_every_factor_is_a_number_that_float32_holds_or_belongs_to_the_kernel(
    outputs: int, taps: int
) -> None:
    form = filtering(outputs, taps)
    for matrix in (form.at, form.bt):
        for value in (value for row in matrix for value in row):
            assert value.denominator & (value.denominator - 1) == 0
            assert abs(value) < 2**6

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from edgepack import baseline as module
from edgepack.artefacts import DTYPE_BYTES, TensorBaseline, Tensors, TensorSpec
from edgepack.baseline import measure_baseline, measure_tensor
from edgepack.canonical import MalformedError, encode
from edgepack.package.baseline import check


def measured(*values: np.ndarray) -> TensorBaseline:
    found = measure_tensor(values)
    assert found is not None
    assert all(low < high for low, high in pairwise(found.edges))
    assert len(found.counts) == len(found.edges) + 1 <= 16
    assert sum(found.counts) + found.nan == found.count == sum(value.size for value in values)
    entry = {"samples": 1, "inputs": [found.to_dict()], "outputs": []}
    encode(entry)
    check(entry, "baseline", 1, 0)
    return found


@pytest.mark.parametrize("dtype", sorted(DTYPE_BYTES))
def test_every_dtype_is_measured_as_numpy_measures_it(dtype: str) -> None:
    values = (np.random.default_rng(1).standard_normal((50, 7, 3)) * 30 + 60).astype(dtype)
    found = measured(*values)
    wide = values.astype(np.float64)
    assert found.mean == pytest.approx(wide.mean(), rel=1e-12)
    assert found.variance == pytest.approx(wide.var(), rel=1e-12)
    assert (found.min, found.max) == (wide.min(), wide.max())
    assert (found.count, found.nan, found.infinite) == (values.size, 0, 0)
    bounds = [-np.inf, *found.edges, np.inf]
    assert found.counts == tuple(np.histogram(wide, bounds)[0])


def test_bins_of_many_values_are_tenths_with_open_ends() -> None:
    values = np.random.default_rng(2).standard_normal(5000)
    found = measured(values)
    assert found.counts == (500,) * 10
    wanted = np.quantile(values, np.arange(1, 10) / 10)
    np.testing.assert_allclose(found.edges, wanted, atol=0.01)


def test_a_value_that_repeats_makes_one_edge() -> None:
    values = np.maximum(np.random.default_rng(3).standard_normal(4000), 0)
    found = measured(values)
    assert found.edges[0] == 0
    assert found.counts[0] == 0, "nothing is negative"
    assert found.counts[1] >= (values == 0).sum()
    assert len(found.edges) < 9


def test_few_values_have_a_bin_each_and_an_empty_one_on_either_side() -> None:
    labels = np.repeat(np.array([1, 4, 7], np.int64), [5, 15, 40])
    found = measured(labels)
    assert found.edges == (1, 4, 7, 8)
    assert found.counts == (0, 5, 15, 40, 0)
    flags = np.array([True] * 2 + [False] * 98)
    assert measured(flags).counts == (0, 98, 2, 0)


@pytest.mark.parametrize(
    ("value", "end"),
    [
        (np.float32(0.5), float(np.nextafter(np.float32(0.5), np.float32(1)))),
        (np.float16(-2), float(np.nextafter(np.float16(-2), np.float16(0)))),
        (np.float64(0), 5e-324),
        (np.finfo(np.float32).max, float(np.nextafter(float(np.finfo(np.float32).max), np.inf))),
        (np.uint8(255), 256.0),
        (np.int64(2**62), 2.0**62 + 1024),
    ],
    ids=["float32", "float16", "zero", "largest float32", "uint8", "int64"],
)
def test_a_constant_has_one_bin_that_holds_nothing_else(value: Any, end: float) -> None:
    found = measured(np.full(200, value))
    assert found.edges == (float(value), end)
    assert found.counts == (0, 200, 0)
    assert (found.mean, found.variance) == (float(value), 0.0)


def test_the_greatest_number_of_all_has_nothing_above_it() -> None:
    found = measured(np.full(1, np.finfo(np.float64).max).repeat(25) / 25)
    assert len(found.edges) == 2
    greatest = measure_tensor([np.full(25, np.finfo(np.float64).max)])
    assert greatest is None, "the sum overflows"
    assert list(module._next(float(np.finfo(np.float64).max), np.dtype(np.float64))) == []


def test_small_samples_have_fewer_bins_and_tiny_ones_none() -> None:
    generator = np.random.default_rng(4)
    assert len(measured(generator.standard_normal(100)).counts) == 5
    assert len(measured(generator.standard_normal(41)).counts) == 2
    for count in (1, 2, 39):
        found = measured(generator.standard_normal(count))
        assert (found.edges, found.counts) == ((), (count,))


def test_nan_is_counted_apart_and_infinity_lies_in_the_outermost_bins() -> None:
    values = np.random.default_rng(5).standard_normal(2000).astype(np.float32)
    values[:20], values[20:30], values[30:32] = np.nan, np.inf, -np.inf
    found = measured(values)
    finite = values[np.isfinite(values)].astype(np.float64)
    assert (found.nan, found.infinite) == (20, 12)
    assert found.mean == pytest.approx(finite.mean(), rel=1e-12)
    assert found.variance == pytest.approx(finite.var(), rel=1e-12)
    assert found.counts[0] == (finite < found.edges[0]).sum() + 2
    assert found.counts[-1] == (finite >= found.edges[-1]).sum() + 10


@pytest.mark.parametrize("values", [[np.nan, np.inf], [1e200, -1e200], [1e308] * 100])
def test_of_some_tensors_nothing_can_be_said(values: list[float]) -> None:
    assert measure_tensor([np.array(values)]) is None


def test_edges_of_a_large_sample_come_from_a_part_of_it_and_counts_from_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = np.random.default_rng(6).standard_normal((10, 5000))
    monkeypatch.setattr(module, "_SORTED_ELEMENTS", 2000)
    found = measured(*values)
    assert found.count == 50000
    np.testing.assert_allclose(np.array(found.counts) / 50000, 0.1, atol=0.02)


def test_tensors_come_in_the_models_order_and_absent_ones_are_left_open() -> None:
    def spec(name: str) -> TensorSpec:
        return TensorSpec(name=name, dtype="float32", shape=(1, 2))

    inputs: list[Tensors] = [
        {"b": np.full((1, 2), i, np.float32), "a": np.zeros((1, 2), np.float32)} for i in range(60)
    ]
    outputs: list[Tensors] = [{"y": np.ones((1, 2), np.float32)} for _ in inputs]
    found = measure_baseline(inputs, outputs, [spec("a"), spec("b")], [spec("gone"), spec("y")])
    assert found.samples == 60
    a, b = found.inputs
    assert a
    assert b
    assert (a.max, b.max) == (0, 59)
    assert found.outputs[0] is None
    assert found.outputs[1]


GOOD = {
    "count": 5,
    "nan": 1,
    "infinite": 0,
    "mean": 0.5,
    "variance": 0.25,
    "min": 0.0,
    "max": 1.0,
    "edges": [0.25],
    "counts": [2, 2],
}


@pytest.mark.parametrize(
    "wrong",
    [
        {"counts": [2, 1]},
        {"counts": [4]},
        {"counts": [-1, 5]},
        {"counts": [2, 2.0]},
        {"edges": [0.25, 0.25], "counts": [2, 2, 0]},
        {"edges": ["0"]},
        {"edges": list(range(16)), "counts": [4] + [0] * 16},
        {"variance": -0.5},
        {"mean": None},
        {"nan": True},
        {"more": 1},
    ],
)
def test_what_is_no_baseline_is_refused(wrong: dict[str, Any]) -> None:
    check({"samples": 1, "inputs": [GOOD, None], "outputs": []}, "baseline", 2, 0)
    with pytest.raises(MalformedError, match=r"baseline\.inputs\[0\]"):
        check({"samples": 1, "inputs": [GOOD | wrong], "outputs": []}, "baseline", 1, 0)
    with pytest.raises(MalformedError, match="has not 2 entries"):
        check({"samples": 1, "inputs": [GOOD], "outputs": []}, "baseline", 2, 0)

"""Kernels that sort, select and suppress: every order, every tie, and values that have no order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests import operators
from tests.bounded_models import Arrays, agree, answers, compiled, differ, imported, network, node
from tests.operators import EVERY_TYPE, whole

Choice = dict[str, Any]
NUMBERS = [dtype for dtype in EVERY_TYPE if dtype != "bool"]


@pytest.mark.parametrize("dtype", NUMBERS)
def test_top_k_of_every_type(dtype: str) -> None:
    nodes = [
        operators.node("TopK", "x three", "v0 i0"),
        operators.node("TopK", "x three", "v1 i1", largest=0, axis=0),
        operators.node("TopK", "x all", "v2 i2", axis=1),
    ]
    constants = {"three": [3], "all": [7]}
    # Few values, many of them equal: the first ones have to win.
    draws = {"x": whole(0, 4, 3, 7, 5, dtype=dtype)}
    operators.agree(nodes, draws, constants, generic=True)


def test_top_k_of_many_is_that_of_numpy() -> None:
    generator = np.random.default_rng(5)
    x = generator.standard_normal((2, 30_000)).astype(np.float32)
    x[:, ::7] = 0.5
    model = network([node("TopK", "x k", "v i")], {"x": x}, "v i", {"k": [1000]})
    found = answers(compiled(imported(model)), {"x": x})
    order = np.argsort(-x, axis=1, kind="stable")[:, :1000]
    assert np.array_equal(found["i"], order)
    assert np.array_equal(found["v"], np.take_along_axis(x, order, 1))


def test_nan_comes_after_all_numbers_and_breaks_nothing() -> None:
    nodes = [node("TopK", "x k", "v i"), node("TopK", "x k", "w j", largest=0)]
    x = np.array([[np.nan, 2, np.nan, -1, 5, np.nan], [np.nan] * 6], np.float32)
    model = network(nodes, {"x": x}, "v i w j", {"k": [4]})
    found = answers(compiled(imported(model)), {"x": x})
    assert found["i"][0].tolist() == [4, 1, 3, 0]
    assert found["j"][0].tolist() == [3, 1, 4, 0]
    assert found["i"][1].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("dtype", ["bool", "int32", "float32"])
def test_places_of_what_is_not_zero(dtype: str) -> None:
    model = network([node("NonZero", "x", "y", name="find")], _few(dtype, 1, 2, 3, 4), "y")
    assert differ(agree(model, [_few(dtype, odds, 2, 3, 4) for odds in (1, 3, 9)], {"find": 24}))


def _few(dtype: str, odds: int, *shape: int) -> Arrays:
    values = np.random.default_rng(odds).integers(0, odds + 1, shape)
    return {"x": (values > 0).astype(dtype)}


@pytest.mark.parametrize("axis", [None, 0, 1, -1])
@pytest.mark.parametrize("is_sorted", [0, 1])
def test_unique_in_both_orders_and_along_axes(axis: int | None, is_sorted: int) -> None:
    options: Choice = {"sorted": is_sorted} | ({} if axis is None else {"axis": axis})
    nodes = [node("Unique", "x", "y first which often", name="different", **options)]

    def drawn(most: int) -> Arrays:
        values = np.random.default_rng(most).integers(0, most, (6, 2, 3))
        values[3:5] = values[0]
        values[:, :, 2] = values[:, :, 0]
        return {"x": values.astype(np.float32 if is_sorted else np.int64)}

    model = network(nodes, drawn(1), "y first which often")
    counts = agree(model, [drawn(most) for most in (1, 2, 9)], {"different": 36})
    assert len({each["different_count"] for each in counts}) > 1


def test_unique_takes_nan_for_one_value_and_both_zeros_for_one() -> None:
    x = np.array([np.nan, 0.0, 1, -0.0, np.nan, 1], np.float32)
    nodes = [node("Unique", "x", "y first which often", name="u")]
    model = network(nodes, {"x": x}, "y first which often")
    found = answers(compiled(imported(model, {"u": 6})), {"x": x})
    assert int(found["u_count"]) == 3
    assert found["first"][:3].tolist() == [1, 2, 0]
    assert found["which"].tolist() == [2, 0, 1, 0, 2, 1]
    assert found["often"][:3].tolist() == [2, 2, 2]


def test_unique_of_more_than_the_bound_keeps_the_first() -> None:
    x = np.array([4, 1, 3, 1, 2], np.float32)
    nodes = [node("Unique", "x", "y first which often", name="u")]
    model = network(nodes, {"x": x}, "y first which often")
    found = answers(compiled(imported(model, {"u": 2})), {"x": x})
    assert int(found["u_count"]) == 2
    assert found["y"].tolist() == [1, 2]
    assert found["often"].tolist() == [2, 1]
    assert found["which"].max() == 1


def boxes(batch: int, count: int, seed: int, *, center: bool = False) -> np.ndarray:
    """Boxes that overlap, some with their corners the other way round, some twice."""
    generator = np.random.default_rng(seed)
    middle, size = generator.random((2, batch, count, 2)) * [[[[1.0]]], [[[0.4]]]] + 0.02
    if center:
        return np.concatenate([middle, size], -1).astype(np.float32)
    corners = np.concatenate([middle - size / 2, middle + size / 2], -1)
    corners[:, 1::5] = corners[:, 0 : count - 1 : 5][:, : corners[:, 1::5].shape[1]]
    corners[:, 2::3] = corners[:, 2::3][..., [2, 3, 0, 1]]
    return corners.astype(np.float32)


def scores(batch: int, classes: int, count: int, seed: int) -> np.ndarray:
    """Scores from 0 to 1 in steps, so that some are equal."""
    values = np.random.default_rng(seed).random((batch, classes, count)) ** (1 + seed)
    return np.round(values, 2).astype(np.float32)


@pytest.mark.parametrize(
    "options",
    [
        {"most": 4, "overlap": 0.5, "score": 0.3},
        {"most": 100, "overlap": 0.3, "score": 0.2, "center": 1},
        {"most": np.iinfo(np.int64).max, "overlap": 0.0, "score": 0.1},
        {"most": 5, "overlap": 1.0},
        {"most": 7},
    ],
    ids=str,
)
def test_suppression_is_that_of_onnxruntime(options: Choice) -> None:
    center = options.get("center", 0)
    given = {name: [value] for name, value in options.items() if name != "center"}
    constants = {
        name: np.array(value, np.int64 if name == "most" else np.float32)
        for name, value in given.items()
    }
    names = " ".join(name if name in given else "-" for name in ("most", "overlap", "score"))
    nodes = [
        node(
            "NonMaxSuppression",
            f"b s {names.rstrip(' -')}",
            "y",
            name="nms",
            center_point_box=center,
        )
    ]

    def drawn(seed: int) -> Arrays:
        return {"b": boxes(2, 23, seed, center=bool(center)), "s": scores(2, 3, 23, seed)}

    model = network(nodes, drawn(0), "y", constants, opset=11)
    counts = agree(model, [drawn(seed) for seed in (0, 1, 2)])
    assert all(each["nms_count"] > 0 for each in counts)
    if options["most"] > 20:
        assert len({each["nms_count"] for each in counts}) > 1


def test_suppression_without_a_number_selects_nothing() -> None:
    given = {"b": boxes(1, 5, 1), "s": scores(1, 1, 5, 1)}
    model = network([node("NonMaxSuppression", "b s", "y", name="nms")], given, "y", opset=11)
    assert agree(model, [given]) == [{"nms_count": 0}]


def test_suppression_of_boxes_without_area_and_of_values_that_are_none() -> None:
    given = {"b": boxes(1, 9, 1), "s": scores(1, 1, 9, 0)}
    given["b"][0, 3] = 0.5
    nodes = [node("NonMaxSuppression", "b s most overlap score", "y", name="nms")]
    constants = {
        "most": np.array([9]),
        "overlap": np.array([0.3], np.float32),
        "score": np.array([0.0], np.float32),
    }
    model = network(nodes, given, "y", constants, opset=11)
    kernel = compiled(imported(model))
    assert agree(model, [given])[0]["nms_count"] > 0
    wild = {"b": given["b"].copy(), "s": given["s"].copy()}
    wild["b"][0, ::2] = np.nan
    wild["b"][0, 1::4] = np.inf
    wild["s"][0, 0, ::3] = np.nan
    found = answers(kernel, wild)
    count = int(found["nms_count"])
    assert 0 <= count <= 9
    assert found["y"].min() >= 0
    assert found["y"][:, 2].max() < 9
    assert not np.isnan(wild["s"][0, 0, found["y"][:count, 2]]).any()


def test_suppression_stops_at_its_bound_in_onnx_order() -> None:
    given = {"b": boxes(2, 23, 0), "s": scores(2, 3, 23, 0)}
    nodes = [node("NonMaxSuppression", "b s most overlap score", "y", name="nms")]
    constants = {
        "most": np.array([9]),
        "overlap": np.array([0.5], np.float32),
        "score": np.array([0.3], np.float32),
    }
    model = network(nodes, given, "y", constants, opset=11)
    whole_answer = answers(compiled(imported(model)), given)
    part = answers(compiled(imported(model, {"nms": 10})), given)
    assert int(whole_answer["nms_count"]) > 10
    assert int(part["nms_count"]) == 10
    assert np.array_equal(part["y"], whole_answer["y"][:10])

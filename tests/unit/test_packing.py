from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import pytest

from edgepack.compiler.cook_toom import filtering
from edgepack.compiler.packing import ATTRIBUTE, pack, packings_of
from edgepack.compiler.schedules.register_tile import make_panels
from edgepack.targets import load_target
from tests import kernels, networks
from tests.kernels import weights
from tests.networks import node

Panels = list[list[int]]


def packed(array: np.ndarray, panels: Panels, **arguments: Any) -> np.ndarray:
    described = {"layout": "panels", "groups": 1, "order": list(range(array.ndim))}
    return pack(array, json.dumps(described | {"panels": panels} | arguments))


def test_panels_hold_neighbouring_results_term_by_term() -> None:
    array = np.arange(15, dtype=np.float32).reshape(3, 5)
    wanted = [0, 1, 5, 6, 10, 11, 2, 3, 7, 8, 12, 13, 4, 9, 14]
    np.testing.assert_array_equal(packed(array, [[2, 2, 2], [1, 1, 1]]), wanted)


def test_lanes_that_are_no_result_have_zero_weights() -> None:
    array = np.arange(1, 7, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(packed(array, [[1, 3, 4]]), [1, 2, 3, 0, 4, 5, 6, 0])


def test_axes_are_ordered_before_they_are_cut() -> None:
    array = weights(5, 2, 3)
    made = packed(array, [[1, 5, 8]], order=[2, 1, 0])
    wanted = np.pad(array.transpose(2, 1, 0).reshape(6, 5), ((0, 0), (0, 3)))
    np.testing.assert_array_equal(made, wanted.ravel())


def test_groups_follow_each_other_with_the_results_that_belong_to_them() -> None:
    array = weights(3, 3, 2, 10)
    made = packed(array, [[1, 4, 4], [1, 1, 1]], groups=2)
    for group, part in enumerate(np.split(made, 2)):
        own = array.reshape(18, 10)[:, 5 * group : 5 * group + 5]
        np.testing.assert_array_equal(part, packed(own, [[1, 4, 4], [1, 1, 1]]))


@pytest.mark.parametrize("width", [1, 3, 4, 5, 16, 17, 31, 33, 64, 100])
@pytest.mark.parametrize("vectors", [1, 2, 3])
@pytest.mark.parametrize("lanes", [1, 4, 8, 16])
@pytest.mark.parametrize("padded", [True, False])
def test_the_panels_of_a_tile_cover_every_result_once(
    width: int, vectors: int, lanes: int, padded: bool
) -> None:
    panels = make_panels(width, vectors, lanes, padded=padded)
    start = 0
    for panel in panels:
        assert panel.start == start
        assert panel.padded >= panel.width
        assert padded or panel.padded == panel.width
        offset = 0
        for vector in panel.vectors:
            assert vector.offset == offset
            assert 1 <= vector.stored <= vector.lanes <= lanes
            offset += vector.stored
        assert offset == panel.width
        assert panel.vectors[-1].offset + panel.vectors[-1].lanes <= panel.padded
        start += panel.count * panel.width
    assert start == width
    array = weights(3, width)
    made = packed(array, [[p.count, p.width, p.padded] for p in panels])
    assert made.size == 3 * sum(p.count * p.padded for p in panels)
    assert np.isclose(made.sum(), array.sum(), atol=1e-5)


@pytest.mark.parametrize("outputs", [[2, 2], [4, 2], [4, 4]])
def test_winograd_weights_are_the_transformed_kernel(outputs: list[int]) -> None:
    kernel = weights(3, 3, 5, 7)
    described = {
        "layout": "winograd",
        "groups": 1,
        "order": [0, 1, 2, 3],
        "panels": [[1, 7, 8]],
        "outputs": outputs,
    }
    made = pack(kernel, json.dumps(described))
    down, across = (np.array(filtering(m, 3).g, np.float64) for m in outputs)
    wanted = np.einsum("ph,hwio,qw->pqio", down, kernel, across)
    shape = (*wanted.shape[:3], 8)
    assert made.dtype == np.float32
    np.testing.assert_allclose(made.reshape(shape)[..., :7], wanted, rtol=1e-6, atol=1e-7)
    assert not made.reshape(shape)[..., 7].any()


@pytest.mark.parametrize("held", [(1, 1), (1, 3), (2, 3)])
def test_phases_of_a_kernel_are_groups_or_lanes_and_their_taps_end_with_the_first(
    held: tuple[int, int],
) -> None:
    kernel = weights(4, 5, 6, 7)
    (down, across), (groups, channels) = held, (2, 3)
    looped = groups * (2 // down) * (3 // across)
    lanes = down * across * 7
    described = {
        "layout": "phases",
        "groups": looped,
        "of_inputs": groups,
        "order": [0, 1, 2, 3],
        "panels": [[1, lanes, lanes + 1]],
        "strides": [2, 3],
        "held": list(held),
    }
    made = pack(kernel, json.dumps(described)).reshape(looped, 2, 2, channels, lanes + 1)
    assert not made[..., lanes].any()
    made = made[..., :lanes].reshape(groups, 2 // down, 3 // across, 2, 2, 3, down, across, 7)
    padded = np.pad(kernel, [(0, 0), (0, 1), (0, 0), (0, 0)])
    for group, (y, x), (row, column), c in itertools.product(
        range(groups), np.ndindex(2, 3), np.ndindex(2, 2), range(channels)
    ):
        outer, lane = (y // down, x // across), (y % down, x % across)
        found = made[group, *outer, row, column, c, *lane]
        tap = padded[y + 2 * (1 - row), x + 3 * (1 - column), group * channels + c]
        np.testing.assert_array_equal(found, tap)


def test_the_plan_packs_a_weight_once_in_each_layout() -> None:
    nodes = [
        node("MatMul", "x w", "a"),
        node("MatMul", "a w", "b"),
        node("Transpose", "w", "t", perm=[1, 0]),
        node("MatMul", "b t", "c"),
        node("Add", "c w", "y"),
    ]
    network = networks.model(nodes, {"x": [13, 13]}, {"y": [13, 13]}, {"w": weights(13, 13)})
    made, _ = kernels.check(network, kernels.PROFILES[0])
    weight = 13 * 13 * 4
    assert 3 * weight <= len(made.plan.weights) < 4 * (weight + 13 * 3 * 4)


def test_a_function_says_how_its_parameters_are_packed() -> None:
    network = networks.model(
        [node("MatMul", "x w", "y")], {"x": [3, 5]}, {"y": [3, 7]}, {"w": weights(5, 7)}
    )
    _, module = kernels.lowered(network, load_target(kernels.PROFILES[0]))
    functions = [f for f in module.functions.values() if ATTRIBUTE in (f.attrs or {})]
    (packings,) = (packings_of(function) for function in functions)
    assert list(packings) == [1]
    assert json.loads(packings[1])["layout"] == "panels"

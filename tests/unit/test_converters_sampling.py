from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from edgepack.targets import load_target
from tests import inferred, kernels
from tests.kernels import weights

BEST = kernels.PROFILES[-1]
PADDINGS = ["zeros", "border", "reflection"]


def sampled(
    data: tuple[int, ...], grid: tuple[int, ...], options: list[dict[str, Any]], opset: int = 20
) -> onnx.ModelProto:
    return inferred.several("GridSample", {"x": data, "g": grid}, options, opset=opset)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("align", [0, 1])
def test_images_in_every_mode(padding: str, align: int) -> None:
    options = [
        {"mode": mode, "padding_mode": padding, "align_corners": align}
        for mode in ("nearest", "linear", "cubic")
    ]
    # The grid's values reach far beyond the image on every side.
    kernels.check(sampled((2, 3, 5, 7), (2, 6, 4, 2), options), BEST)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("align", [0, 1])
def test_volumes(padding: str, align: int) -> None:
    options = [
        {"mode": mode, "padding_mode": padding, "align_corners": align}
        for mode in ("nearest", "linear")
    ]
    kernels.check(sampled((1, 2, 3, 5, 4), (1, 2, 3, 4, 3), options), BEST)


def test_names_of_the_modes_before_opset_20() -> None:
    options = [{"mode": mode} for mode in ("bilinear", "nearest", "bicubic")]
    kernels.check(sampled((1, 2, 5, 7), (1, 6, 4, 2), options, opset=16), BEST)


def test_half_precision() -> None:
    network = inferred.several(
        "GridSample",
        {"x": (1, 2, 5, 7), "g": (1, 6, 4, 2)},
        [{}],
        opset=20,
        types={"x": TensorProto.FLOAT16},
    )
    compiled = kernels.compile_network(network, load_target(BEST))
    inputs = kernels.random_inputs(compiled.imported, 1)
    (answer,) = kernels.run(compiled, inputs)
    (wanted,) = ReferenceEvaluator(network).run(None, dict(zip("xg", inputs, strict=True)))
    np.testing.assert_allclose(answer.astype(float), np.asarray(wanted, float), atol=2e-3)


@pytest.mark.parametrize("padding", PADDINGS)
def test_no_place_reads_outside(padding: str) -> None:
    options = [
        {"mode": mode, "padding_mode": padding, "align_corners": align}
        for mode in ("nearest", "linear", "cubic")
        for align in (0, 1)
    ]
    network = sampled((1, 2, 3, 1), (1, 1, 8, 2), options)
    compiled = kernels.compile_network(network, load_target(BEST))
    image = np.arange(1, 7, dtype=np.float32).reshape(1, 2, 3, 1)
    grid = np.zeros((1, 1, 8, 2), np.float32)
    grid[0, 0, :, 1] = [np.nan, np.inf, -np.inf, 1e38, -1e38, 3e9, -3e9, 0]
    for answer in kernels.run(compiled, [image, grid]):
        assert np.isfinite(answer).all()
        assert np.abs(answer).max() <= 6 * 1.25


@pytest.mark.parametrize("options", [{}, {"group": 2, "offset_group": 3}])
@pytest.mark.parametrize("shape", [(2, 6, 7, 5), (1, 6, 9)])
def test_deformed_convolution(shape: tuple[int, ...], options: dict[str, Any]) -> None:
    rank = len(shape) - 2
    kernel = (3, 2)[:rank]
    windows: dict[str, Any] = {
        "strides": [2, 1][:rank],
        "pads": [1] * 2 * rank,
        "dilations": [1, 2][:rank],
    }
    outputs = ((shape[2] - 1) // 2 + 1, 5)[:rank]
    taps, parts = int(np.prod(kernel)), options.get("offset_group", 1)
    inputs = {
        "x": shape,
        "o": (shape[0], parts * taps * rank, *outputs),
        "m": (shape[0], parts * taps, *outputs),
    }
    parameters = {"w": weights(4, 6 // options.get("group", 1), *kernel), "b": weights(4)}
    nodes = [
        helper.make_node("DeformConv", ["x", "w", "o", "b", "m"], ["y"], **windows, **options),
        helper.make_node("DeformConv", ["x", "w", "o"], ["z"], **windows, **options),
    ]
    network = inferred.network(nodes, inputs, "yz", parameters)
    if rank == 2:
        kernels.check(network, BEST)
        return
    compiled = kernels.compile_network(network, load_target(BEST))
    given = kernels.random_inputs(compiled.imported, 1)
    plain, masked = (np.zeros_like(given[1]), np.ones_like(given[2]))
    answers = kernels.run(compiled, [given[0], plain, masked])
    for answer, bias in zip(answers, (parameters["b"], np.zeros(4)), strict=True):
        convolved = inferred.several(
            "Conv",
            {"x": shape},
            [{**windows, "group": options.get("group", 1)}],
            {"w": parameters["w"], "b": np.asarray(bias, np.float32)},
        )
        (wanted,) = kernels.expected(convolved, ["x"], [given[0]])
        np.testing.assert_allclose(answer, wanted, atol=1e-5)


def aligned(options: list[dict[str, Any]], *, opset: int = 16) -> onnx.ModelProto:
    inputs = {"x": (3, 5, 9, 11), "r": (6, 4), "b": (6,)}
    types = {"b": TensorProto.INT64}
    return inferred.several("RoiAlign", inputs, options, opset=opset, types=types)


REGIONS = np.array(
    [
        [0, 0, 10, 8],
        [2.5, 1.25, 6.75, 4],
        [-4, -3, 30, 20],
        [3, 3, 3.2, 3.1],
        [5, 6, 2, 1],
        [20, 20, 25, 25],
    ],
    np.float32,
)


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("ratio", [0, 3])
def test_regions_aligned(mode: str, ratio: int) -> None:
    options = [
        {
            "mode": mode,
            "sampling_ratio": ratio,
            "output_height": 3,
            "output_width": 2,
            "spatial_scale": scale,
            "coordinate_transformation_mode": transformation,
        }
        for scale in (1.0, 0.5)
        for transformation in ("half_pixel", "output_half_pixel")
    ]
    check_regions(aligned(options), REGIONS, np.array([0, 1, 2, 2, 1, 0]))


def test_regions_before_opset_16() -> None:
    options = [{"output_height": 3, "output_width": 2}]
    check_regions(aligned(options, opset=10), REGIONS, np.array([0, 1, 2, 2, 1, 0]))


def check_regions(network: onnx.ModelProto, *others: np.ndarray) -> None:
    compiled = kernels.compile_network(network, load_target(BEST))
    data = kernels.random_inputs(compiled.imported, 1)[0]
    inputs = [data, *others]
    answers = kernels.run(compiled, inputs)
    names = [spec.name for spec in compiled.imported.inputs]
    wanted = kernels.expected(network, names, inputs)
    for ours, theirs in zip(answers, wanted, strict=True):
        assert kernels.error_of(ours, theirs) <= 1e-5


def test_largest_of_regions() -> None:
    options = [
        {"pooled_shape": [3, 2], "spatial_scale": 1.0},
        {"pooled_shape": [1, 1], "spatial_scale": 0.4},
    ]
    network = inferred.several("MaxRoiPool", {"x": (3, 5, 9, 11), "r": (6, 5)}, options)
    numbers = np.array([[0], [1], [2], [2], [1], [0]], np.float32)
    regions = REGIONS.copy()
    regions[2] = [1, 0, 9, 7]
    check_regions(network, np.concatenate([numbers, regions], axis=1))


@pytest.mark.parametrize("operator", ["RoiAlign", "MaxRoiPool"])
def test_no_region_reads_outside_nor_takes_long(operator: str) -> None:
    bad = np.array([np.nan, np.inf, -np.inf, 3e38, -3e38, 1e9], np.float32)
    regions = np.stack([np.roll(bad, shift) for shift in range(4)], axis=1)
    if operator == "RoiAlign":
        network = aligned([{"mode": mode, "output_height": 2} for mode in ("avg", "max")])
        others: list[np.ndarray] = [regions, np.array([0, -1, 3, 1 << 40, -(1 << 40), 1], np.int64)]
    else:
        network = inferred.several(
            operator, {"x": (3, 5, 9, 11), "r": (6, 5)}, [{"pooled_shape": [2, 2]}]
        )
        others = [np.concatenate([bad[:, None], regions], axis=1)]
    compiled = kernels.compile_network(network, load_target(BEST))
    data = kernels.random_inputs(compiled.imported, 1)[0]
    kernels.run(compiled, [data, *others])

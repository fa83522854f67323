from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgepack.targets import load_target
from tests import inferred, kernels

BEST = kernels.PROFILES[-1]
TRANSFORMATIONS = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"]
ROUNDINGS = ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]


def resized(
    shape: tuple[int, ...],
    options: list[dict[str, Any]],
    *,
    opset: int = 19,
    dtype: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    """A Resize for each entry, whose "scales" or "sizes" and "roi" are inputs."""
    nodes, weights = [], {}
    for number, entry in enumerate(options):
        attributes, names = dict(entry), ["x"]
        for name in ("roi", "scales", "sizes"):
            value = attributes.pop(name, None)
            names.append("" if value is None else f"{name}{number}")
            if value is not None:
                kind = np.int64 if name == "sizes" else np.float32
                weights[names[-1]] = np.array(value, kind)
        nodes.append(helper.make_node("Resize", names, [f"y{number}"], **attributes))
    outputs = [f"y{number}" for number in range(len(options))]
    return inferred.network(nodes, {"x": shape}, outputs, weights, opset=opset, types={"x": dtype})


@pytest.mark.parametrize("transformation", [*TRANSFORMATIONS, "half_pixel_symmetric"])
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_every_mode_and_transformation(mode: str, transformation: str) -> None:
    common: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": transformation}
    options = [
        common | {"sizes": [2, 3, 11, 4]},
        common | {"sizes": [2, 3, 1, 20]},
        common | {"scales": [1, 1, 2, 3]},
        common | {"scales": [1, 1, 0.5, 0.65]},
        common | {"scales": [1, 1, 1.7, 2.35]},
    ]
    if mode == "nearest":
        rounded = [entry | {"nearest_mode": r} for r in ROUNDINGS for entry in options[:4:3]]
        options = [*options, *rounded]
    kernels.check(resized((2, 3, 6, 10), options), BEST)


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_part_of_an_image(mode: str) -> None:
    options = [
        {
            "mode": mode,
            "coordinate_transformation_mode": "tf_crop_and_resize",
            "sizes": [1, 2, *sizes],
            "roi": [0, 0, *roi[:2], 1, 1, *roi[2:]],
            "extrapolation_value": 10.0,
        }
        for sizes, roi in [
            ((3, 4), (0.4, 0.6, 0.6, 0.8)),
            ((5, 7), (-0.3, 0.2, 1.2, 1.4)),
            ((1, 6), (0.1, 0.9, 0.7, 0.2)),
        ]
    ]
    kernels.check(resized((1, 2, 7, 9), options), BEST)


@pytest.mark.parametrize("exclude", [0, 1])
def test_cubic_kernels(exclude: int) -> None:
    options = [
        {"mode": "cubic", "cubic_coeff_a": a, "exclude_outside": exclude, "sizes": [1, 2, 13, 5]}
        for a in (-0.75, -0.5)
    ]
    kernels.check(resized((1, 2, 7, 9), options), BEST)


@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_stretched_kernels_against_aliasing(mode: str) -> None:
    options = [
        {"mode": mode, "antialias": 1, "sizes": [1, 2, *sizes]}
        for sizes in ((5, 4), (3, 20), (2, 1), (14, 23))
    ]
    kernels.check(resized((1, 2, 31, 23), options), BEST)


@pytest.mark.parametrize("policy", ["not_larger", "not_smaller"])
def test_sizes_that_keep_the_aspect_ratio(policy: str) -> None:
    options = [
        {"mode": mode, "axes": [2, 3], "sizes": [9, 9], "keep_aspect_ratio_policy": policy}
        for mode in ("nearest", "linear")
    ]
    kernels.check(resized((1, 2, 6, 4), options), BEST)


def test_axes_in_any_order() -> None:
    options: list[dict[str, Any]] = [
        {"axes": [3, 2], "sizes": [9, 5], "mode": "linear"},
        {"axes": [-1], "scales": [2.5], "mode": "nearest"},
        {"axes": [2, 0], "scales": [2.0, 2.0], "mode": "nearest"},
    ]
    kernels.check(resized((2, 3, 6, 4), options), BEST)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("shape", [(2, 3, 9), (1, 2, 4, 5, 6), (5, 7)])
def test_other_ranks(shape: tuple[int, ...], mode: str) -> None:
    scales = [1.0] * min(2, len(shape) - 1) + [2.0, 1.5, 0.5][: max(1, len(shape) - 2)]
    options = [{"mode": mode, "scales": scales}]
    kernels.check(resized(shape, options), BEST)


@pytest.mark.parametrize("dtype", [TensorProto.UINT8, TensorProto.INT8])
def test_bytes(dtype: int) -> None:
    nearest = [{"mode": "nearest", "sizes": [1, 3, 9, 5]}]
    kernels.check(resized((1, 3, 6, 7), nearest, dtype=dtype), BEST)
    network = resized((1, 3, 6, 7), [{"mode": "linear", "sizes": [1, 3, 17, 23]}], dtype=dtype)
    compiled = kernels.compile_network(network, load_target(BEST))
    inputs = kernels.random_inputs(compiled.imported, 1)
    (answer,) = kernels.run(compiled, inputs)
    (wanted,) = kernels.expected(network, ["x"], inputs)
    # Both cut off what is behind the point; of whole numbers that is a matter of rounding errors.
    difference = np.abs(answer.astype(int) - wanted.astype(int))
    assert difference.max() <= 1
    assert np.count_nonzero(difference) <= difference.size // 100


def test_half_precision() -> None:
    options = [{"mode": mode, "sizes": [1, 3, 9, 5]} for mode in ("nearest", "linear")]
    network = resized((1, 3, 6, 7), options, dtype=TensorProto.FLOAT16)
    kernels.check(network, BEST, tolerance=1e-3)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("scales", [(3, 2), (0.6, 0.5), (1.5, 2.7)])
def test_before_opset_11(mode: str, scales: tuple[float, float]) -> None:
    weights = {"s": np.array([1, 1, *scales], np.float32)}
    for operator, opset in (("Resize", 10), ("Upsample", 9)):
        if operator == "Upsample" and min(scales) < 1:
            continue
        nodes = [helper.make_node(operator, ["x", "s"], ["y"], mode=mode)]
        kernels.check(inferred.network(nodes, {"x": (1, 2, 6, 5)}, "y", weights, opset=opset), BEST)


def test_upsample_with_scales_as_an_attribute() -> None:
    options = [{"mode": mode, "scales": [1.0, 1.0, 2.0, 3.0]} for mode in ("nearest", "linear")]
    network = inferred.several("Upsample", {"x": (1, 2, 6, 5)}, options, opset=7)
    kernels.check(network, BEST)


@pytest.mark.parametrize("factor", [2, 7, 13])
def test_whole_factors_find_the_same_elements_however_large_the_image(factor: int) -> None:
    options = [
        {
            "mode": "nearest",
            "scales": [1, 1, 1, factor],
            "coordinate_transformation_mode": transformation,
            "nearest_mode": rounding,
        }
        for transformation in TRANSFORMATIONS
        for rounding in ("floor", "round_prefer_floor")
    ]
    kernels.check(resized((1, 1, 2, 517), options), BEST, tolerance=0)

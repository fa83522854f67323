from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgepack.errors import CompileError, ModelError
from edgepack.importers import functions
from tests import operators
from tests.operators import FLOATS, ints, node, normal

TOLERANCES = {"float16": 2e-3, "float32": 2e-6, "float64": 1e-13}


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("channels", [1, 2])
def test_every_axis_and_direction(channels: int, dtype: str) -> None:
    nodes = [
        node("DFT", f"x - {axis}", f"y{axis}{inverse}", inverse=inverse)
        for axis in ("first", "second")
        for inverse in (0, 1)
    ]
    if channels == 1:
        nodes.append(node("DFT", "x - second", "half", onesided=1))
    else:
        nodes.append(node("DFT", "x - second", "real", onesided=1, inverse=1))
    constants = {"first": np.int64(-3), "second": np.int64(1)}
    draws = {"x": normal(6, 10, channels, dtype=dtype)}
    operators.agree(nodes, draws, constants, opset=20, tolerance=TOLERANCES[dtype])


def test_lengths_that_cut_or_extend_the_signal() -> None:
    nodes = [
        node(
            "DFT",
            f"{x} {length}",
            f"{x}{length}{inverse}{onesided}",
            inverse=inverse,
            onesided=onesided,
        )
        for length in ("six", "seven", "sixteen")
        for x, inverse, onesided in (
            ("x", 0, 0),
            ("x", 0, 1),
            ("z", 0, 0),
            ("z", 1, 0),
            ("z", 1, 1),
        )
    ]
    constants = {"six": np.int64(6), "seven": np.int64(7), "sixteen": np.int64(16)}
    draws = {"x": normal(3, 10, 1), "z": normal(3, 10, 2)}
    operators.agree(nodes, draws, constants, opset=20, tolerance=2e-6)


def test_the_axis_as_an_attribute_of_old_opsets() -> None:
    nodes = [node("DFT", "x", "y"), node("DFT", "x", "z", axis=0, inverse=1)]
    operators.agree(nodes, {"x": normal(6, 10, 2)}, opset=19, tolerance=2e-6)


def test_long_transforms_are_made_of_short_ones() -> None:
    length = 1536
    nodes = [
        node("DFT", "x", "half", onesided=1),
        node("DFT", "z", "whole"),
        node("DFT", "z", "back", inverse=1),
        node("DFT", "h", "real", onesided=1, inverse=1),
    ]
    draws = {
        "x": normal(1, length, 1),
        "z": normal(1, length, 2),
        "h": normal(1, length // 2 + 1, 2),
    }
    compiled = operators.agree(nodes, draws, opset=20, tolerance=2e-6)
    # One matrix for all of a transform of complex numbers would have (2 length)^2 elements.
    assert len(compiled.plan.weights) < (2 * length) ** 2


def test_a_long_transform_whose_length_has_a_large_prime_factor() -> None:
    transform = node("DFT", "x", "y", onesided=1)
    operators.agree(transform, {"x": normal(1, 2 * 613, 1)}, opset=20, tolerance=2e-6)


def test_a_long_transform_of_prime_length_is_refused() -> None:
    with pytest.raises((ModelError, CompileError), match="prime factor 4099"):
        operators.agree(node("DFT", "x", "y"), {"x": normal(1, 4099, 2)}, opset=20)


@pytest.mark.parametrize("dtype", FLOATS)
def test_stretches_of_a_signal_under_a_window(dtype: str) -> None:
    window = np.hanning(16).astype(dtype)
    nodes = [
        node("STFT", "x step - length", "plain", onesided=0),
        node("STFT", "x step w", "known", onesided=1),
        node("STFT", "x step v length", "given", onesided=1),
        node("STFT", "z step w", "complex", onesided=0),
    ]
    constants = {"step": np.int64(7), "length": np.int64(16), "w": window}
    draws = {
        "x": normal(2, 100, 1, dtype=dtype),
        "z": normal(2, 100, 2, dtype=dtype),
        "v": normal(16, dtype=dtype),
    }
    operators.agree(nodes, draws, constants, opset=17, tolerance=TOLERANCES[dtype])


def test_long_stretches() -> None:
    window = np.hanning(2048).astype(np.float32)
    stft = node("STFT", "x step w", "y", onesided=1)
    constants = {"step": np.int64(512), "w": window}
    operators.agree(stft, {"x": normal(1, 5000, 1)}, constants, opset=17, tolerance=2e-6)


def test_windows_and_filters_are_constants_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functions, "REPLACED", ())  # the operators themselves
    names = ("HannWindow", "HammingWindow", "BlackmanWindow")
    nodes = [node(name, "size", name) for name in names]
    nodes += [node("Mul", f"x {name}", f"y{name}") for name in names]
    nodes += [
        node("MelWeightMatrix", "mels bins rate low high", "mel"),
        node("MatMul", "z mel", "y"),
    ]
    constants = {
        "size": np.int64(20),
        "mels": np.int64(8),
        "bins": np.int64(16),
        "rate": np.int64(8192),
        "low": np.float32(0),
        "high": np.float32(4096),
    }
    draws = {"x": normal(3, 20), "z": normal(3, 9)}
    operators.agree(nodes, draws, constants, opset=17)


GRIDS: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
    ((2, 2, 3), (2, 3, 4, 5)),
    ((1, 3, 4), (1, 3, 4, 5, 3)),
]


@pytest.mark.parametrize("corners", [0, 1])
@pytest.mark.parametrize("dtype", FLOATS)
def test_grids_of_affine_maps(dtype: str, corners: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functions, "REPLACED", ())  # the operator itself, not ONNX's definition

    def wanted(_: Any, inputs: operators.Arrays) -> list[np.ndarray]:
        grids = []
        for theta, (_, (_, _, *extents)) in zip(inputs.values(), GRIDS, strict=True):
            plain = [
                np.linspace(-1, 1, n) if corners else (np.arange(n) * 2 + 1) / n - 1
                for n in extents
            ]
            places = np.stack([*np.meshgrid(*plain, indexing="ij")[::-1], np.ones(extents)], -1)
            grids.append(np.einsum("nij,...j->n...i", theta.astype("f8"), places).astype(dtype))
        return grids

    nodes = [
        node("AffineGrid", f"t{i} s{i}", f"y{i}", align_corners=corners) for i in range(len(GRIDS))
    ]
    draws = {f"t{i}": normal(*theta, dtype=dtype) for i, (theta, _) in enumerate(GRIDS)}
    sizes = {f"s{i}": ints(*size) for i, (_, size) in enumerate(GRIDS)}
    operators.agree(nodes, draws, sizes, opset=20, oracle=wanted)


FOLDS: list[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], dict[str, list[int]]]] = [
    ((2, 27, 25), (5, 5), (3, 3), {"pads": [1, 1, 1, 1]}),
    ((1, 8, 12), (8, 7), (2, 2), {"strides": [2, 2]}),
    ((1, 6, 5), (7,), (3,), {}),
    ((1, 8, 12), (5, 6), (2, 2), {"dilations": [1, 3]}),
    ((1, 16, 9), (3, 4, 5), (1, 4, 4), {"pads": [0, 0, 1, 0, 0, 0], "strides": [1, 1, 1]}),
]


@pytest.mark.parametrize("dtype", FLOATS)
def test_columns_added_up_to_an_image(dtype: str) -> None:
    folds = FOLDS[:3] if dtype != "float32" else FOLDS
    nodes = [
        node("Col2Im", f"x{i} image{i} block{i}", f"y{i}", **attributes)
        for i, (*_, attributes) in enumerate(folds)
    ]
    constants = {f"image{i}": ints(*image) for i, (_, image, *_) in enumerate(folds)}
    constants |= {f"block{i}": ints(*block) for i, (_, _, block, _) in enumerate(folds)}
    draws = {f"x{i}": normal(*shape, dtype=dtype) for i, (shape, *_) in enumerate(folds)}
    operators.agree(nodes, draws, constants, opset=18)

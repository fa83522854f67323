"""Which elements of an axis each element of a resized one is made of, and with what weights.

The formulas are ONNX's (operator Resize). Coordinates are computed in float32, as ONNX Runtime does:
which of two neighbours is nearest must not depend on who computes it. The corners of align_corners
are those of the whole output, as in PyTorch, also where a scale does not give a whole length.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, kw_only=True)
class Axis:
    """How one axis is resized."""

    extent: int
    output: int
    scale: float
    start: float = 0.0
    end: float = 1.0
    """What tf_crop_and_resize takes of it; parts of the whole."""

    @property
    def is_whole(self) -> bool:
        """Whether the scale is that of the lengths: no part of an element was cut off."""
        return math.isclose(self.extent * self.scale, self.output, rel_tol=1e-6)


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """How elements are made: the attributes of Resize that say so."""

    mode: str
    transformation: str
    nearest: str = "round_prefer_floor"
    cubic: float = -0.75
    antialias: bool = False
    exclude_outside: bool = False


@dataclass(frozen=True, kw_only=True)
class Table:
    """Element o of the output is the sum over k of weights[o, k] * input[places[o, k]]."""

    places: np.ndarray
    """int32, each within the axis."""
    weights: np.ndarray
    """float64."""
    outside: np.ndarray
    """Whether o lies beyond the input: there tf_crop_and_resize gives a value of its own."""


def table(axis: Axis, kernel: Kernel) -> Table:
    """The table of one axis."""
    import numpy as np

    at = coordinates(axis, kernel.transformation)
    crops = kernel.transformation == "tf_crop_and_resize"
    outside = (at < 0) | (at > axis.extent - 1) if crops else np.zeros(axis.output, bool)
    if kernel.mode == "nearest":
        places = nearest(at, axis, kernel.nearest)[:, None]
        return Table(places=places, weights=np.ones(places.shape), outside=outside)
    places, weights = _taps(at.astype(np.float64), axis, kernel)
    if kernel.exclude_outside:
        weights = np.where((places >= 0) & (places < axis.extent), weights, 0)
        weights = weights / weights.sum(axis=1, keepdims=True)
    used = (weights != 0).any(axis=0)
    inside = np.clip(places, 0, axis.extent - 1).astype(np.int32)
    return Table(places=inside[:, used], weights=weights[:, used], outside=outside)


def coordinates(axis: Axis, transformation: str) -> np.ndarray:
    """Where on the input each element of the output lies, float32."""
    import numpy as np

    one, half = np.float32(1), np.float32(0.5)
    at = np.arange(axis.output, dtype=np.float32)
    extent, output, scale = (np.float32(v) for v in (axis.extent, axis.output, axis.scale))
    found: np.ndarray
    if transformation == "asymmetric":
        found = at / scale
    elif transformation == "align_corners":
        found = at * (extent - one) / (output - one) if axis.output > 1 else at * 0
    elif transformation == "tf_crop_and_resize":
        start, end = np.float32(axis.start), np.float32(axis.end)
        if axis.output > 1:
            found = start * (extent - one) + at * (end - start) * (extent - one) / (output - one)
        else:
            found = at + half * (start + end) * (extent - one)
    elif transformation == "pytorch_half_pixel" and axis.output == 1:
        found = at * 0
    else:
        found = (at + half) / scale - half
        if transformation == "half_pixel_symmetric":
            found = found + extent * half * (one - output / (scale * extent))
    return found


def nearest(at: np.ndarray, axis: Axis, rounding: str) -> np.ndarray:
    """The places nearest to coordinates, int32, within the axis."""
    import numpy as np

    if rounding == "simple":  # before opset 11: towards the end where the axis is made shorter
        rounding = "ceil" if axis.scale < 1 else "floor"
    exact = at.astype(np.float64)
    if rounding.startswith("round"):
        prefers_floor = rounding == "round_prefer_floor"
        rounded = np.ceil(exact - 0.5) if prefers_floor else np.floor(exact + 0.5)
    else:
        rounded = np.floor(exact) if rounding == "floor" else np.ceil(exact)
    places: np.ndarray = np.clip(rounded, 0, axis.extent - 1).astype(np.int32)
    return places


def _taps(at: np.ndarray, axis: Axis, kernel: Kernel) -> tuple[np.ndarray, np.ndarray]:
    """Places, which may lie outside, and weights, whose sum is 1."""
    import numpy as np

    first = np.floor(at).astype(np.int64)
    reach = 1 if kernel.mode == "linear" else 2
    # Against aliasing the kernel is stretched as far as the input is squeezed.
    stretch = min(axis.scale, 1.0) if kernel.antialias else 1.0
    start = math.floor(-reach / stretch) + 1
    offsets = np.arange(start, 2 - start)
    distance = np.abs(offsets[None, :] - (at - first)[:, None]) * stretch
    is_linear = kernel.mode == "linear"
    weights = np.clip(1 - distance, 0, 1) if is_linear else _cubic(distance, kernel.cubic)
    return first[:, None] + offsets[None, :], weights / weights.sum(axis=1, keepdims=True)


def _cubic(distance: np.ndarray, a: float) -> np.ndarray:
    """R. G. Keys' kernel; "Cubic convolution interpolation for digital image processing", 1981."""
    import numpy as np

    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((distance - 5) * distance + 8) * distance * a - 4 * a
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0))

"""DFT and STFT, of real and complex signals; 16-bit types are transformed in float32."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from edgepack.compiler.frontend.converters import fourier
from edgepack.compiler.frontend.converters.slicing import sliced
from edgepack.compiler.frontend.converters.values import cast, reshaped, widened
from edgepack.compiler.frontend.converters.views import permuted
from edgepack.compiler.frontend.node import (
    Converter,
    Node,
    constant,
    constant_of,
    dtype_of,
    shape_of,
)

if TYPE_CHECKING:
    import numpy as np

DOMAIN = ""


def _dft(node: Node) -> Any:
    shape = node.shape()
    rank = len(shape)
    axis = node.attributes.get("axis", 1) % rank if node.opset < 20 else _axis(node, rank)
    inverse, onesided = (bool(node.attributes.get(name, 0)) for name in ("inverse", "onesided"))
    length = shape[axis]
    if node.has(1):
        length = int(node.known(1, "length").item())
    elif inverse and onesided:
        length = 2 * (length - 1)
    order = [*(a for a in range(rank) if a not in (axis, rank - 1)), axis, rank - 1]
    data = node.emit(permuted(widened(node, node.inputs[0]), order))
    lines = math.prod(shape[a] for a in order[:-2])
    signal = node.emit(reshaped(data, [lines, shape[axis], shape[-1]]))
    if inverse and onesided:
        result = _real_signal(node, signal, length)
    else:
        bins = length // 2 + 1 if onesided else length
        result = _spectrum(node, signal, length, bins, inverse=inverse)
    apart = [*(shape[a] for a in order[:-2]), *shape_of(result)[1:]]
    back = sorted(range(rank), key=lambda place: order[place])
    moved = permuted(node.emit(reshaped(result, apart)), back)
    return cast(node.emit(moved), node.dtype())


def _axis(node: Node, rank: int) -> int:
    axis = int(node.known(2, "axis").item()) if node.has(2) else -2
    return axis % rank


def _spectrum(node: Node, signal: Any, length: int, bins: int, *, inverse: bool) -> Any:
    """[lines, bins, 2] of [lines, samples, channels]; what is missing of ``length`` is 0."""
    lines, samples, channels = shape_of(signal)
    used = min(samples, length)
    if used < samples:
        signal = sliced(node, signal, {1: (0, used, 1)})
    if fourier.is_small(used * channels, bins * 2):
        flat = node.emit(reshaped(signal, [lines, used * channels]))
        factors = fourier.matrix(used, length, bins, channels, inverse=inverse)
        return node.emit(reshaped(fourier.multiplied(node, flat, factors), [lines, bins, 2]))
    whole = fourier.transformed(node, _extended(node, signal, length), length, inverse=inverse)
    return sliced(node, whole, {1: (0, bins, 1)})


def _extended(node: Node, signal: Any, length: int) -> Any:
    """With zeros up to ``length``."""
    from tvm import relax

    missing = length - shape_of(signal)[1]
    if not missing:
        return signal
    return node.emit(relax.op.nn.pad(signal, [0, 0, 0, missing, 0, 0], "constant", 0.0))


def _real_signal(node: Node, spectrum: Any, length: int) -> Any:
    """[lines, length, 1] of the first half of a spectrum, [lines, bins, 2]."""
    from tvm import relax

    lines, bins, _ = shape_of(spectrum)
    used = min(bins, length // 2 + 1)
    half = sliced(node, spectrum, {1: (0, used, 1)}) if used < bins else spectrum
    if fourier.is_small(used * 2, length):
        flat = node.emit(reshaped(half, [lines, used * 2]))
        signal = fourier.multiplied(node, flat, fourier.real_matrix(used, length))
        return node.emit(reshaped(signal, [lines, length, 1]))
    half = _extended(node, half, length // 2 + 1)
    rest = sliced(node, half, {1: ((length - 1) // 2, 0, -1)})
    whole = node.emit(relax.op.concat([half, _conjugate(node, rest)], 1))
    return sliced(node, fourier.transformed(node, whole, length, inverse=True), {2: (0, 1, 1)})


def _conjugate(node: Node, numbers: Any) -> Any:
    import numpy as np
    from tvm import relax

    signs = constant(np.array([1, -1]), dtype_of(numbers))
    return node.emit(relax.op.multiply(numbers, signs))


def _stft(node: Node) -> Any:
    """The spectra of stretches of the signal, each under a window."""
    shape = node.shape()
    lines, samples = shape[:2]
    channels = shape[2] if len(shape) > 2 else 1
    step = int(node.known(1, "frame step").item())
    length = _frame_length(node, samples)
    frames = (samples - length) // step + 1
    onesided = bool(node.attributes.get("onesided", 1))
    bins = length // 2 + 1 if onesided else length
    data = node.emit(reshaped(widened(node, node.inputs[0]), [lines, samples * channels]))
    cut = _frames(node, data, (frames, length * channels, step * channels))
    window = node.optional(2)
    known = None if window is None else constant_of(window)
    rows = length * channels
    if fourier.is_small(rows, bins * 2) and (window is None or known is not None):
        result = fourier.multiplied(node, cut, _windowed(known, length, bins, channels))
    else:
        signal = node.emit(reshaped(cut, [lines * frames, length, channels]))
        signal = signal if window is None else _under(node, signal, window)
        result = _spectrum(node, signal, length, bins, inverse=False)
    return cast(node.emit(reshaped(result, [lines, frames, bins, 2])), node.dtype())


def _frame_length(node: Node, samples: int) -> int:
    if node.has(3):
        return int(node.known(3, "frame length").item())
    return int(node.shape(2)[0]) if node.has(2) else samples


def _windowed(window: np.ndarray | None, length: int, bins: int, channels: int) -> np.ndarray:
    """The matrix of the transform, with the window in it."""
    import numpy as np

    factors = fourier.matrix(length, length, bins, channels, inverse=False)
    weights = np.ones(length) if window is None else window.astype("float64").reshape(-1)
    result: np.ndarray = factors * np.repeat(weights, channels)[:, None]
    return result


def _frames(node: Node, data: Any, geometry: tuple[int, int, int]) -> Any:
    """Overlapping stretches [lines, count, length] of [lines, samples]."""
    count, length, step = geometry

    def kernel(x: Any) -> Any:
        from tvm import te

        return te.compute((x.shape[0], count, length), lambda line, i, j: x(line, i * step + j))

    return node.compute(kernel, data)


def _under(node: Node, signal: Any, window: Any) -> Any:
    from tvm import relax

    length = shape_of(signal)[1]
    weights = node.emit(reshaped(widened(node, window), [1, length, 1]))
    return node.emit(relax.op.multiply(signal, weights))


CONVERTERS: dict[str, Converter] = {"DFT": _dft, "STFT": _stft}

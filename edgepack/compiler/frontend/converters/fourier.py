"""The discrete Fourier transform as products with matrices of cosines and sines.

A complex number is two neighbours along the last axis, real part first, in operands and results as
in the matrices. A matrix that would be too large is two smaller ones with a multiplication by roots of
unity between (J. W. Cooley and J. W. Tukey, 1965):

    n = B n1 + n2, k = k1 + A k2:   X[k] = sum over n2 of w(n2 k1) w_B(n2 k2) sum over n1 of w_A(n1 k1) x[n]
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from edgepack.compiler.frontend.converters.values import reshaped
from edgepack.compiler.frontend.node import Node, constant, dtype_of, shape_of

if TYPE_CHECKING:
    import numpy as np

_LARGEST_MATRIX = 1 << 20
"""Elements; of float32, 4 MiB of weights."""
_LARGEST_PRIME = 2048
"""A length with a larger prime factor would need a matrix of more than 64 MiB."""


def matrix(samples: int, length: int, bins: int, channels: int, *, inverse: bool) -> np.ndarray:
    """[samples * channels, bins * 2], float64: the first ``bins`` of a transform of ``length``.

    ``samples`` are there of the signal, the rest is 0. ``channels`` is 1 of a real signal.
    """
    import numpy as np

    cosine, sine = _waves(samples, length, bins)
    if inverse:
        cosine, sine = cosine / length, -sine / length
    rows = [np.stack([cosine, -sine], -1), np.stack([sine, cosine], -1)][:channels]
    return np.stack(rows, 1).reshape(samples * channels, bins * 2)


def real_matrix(bins: int, length: int) -> np.ndarray:
    """[bins * 2, length], float64: from the first half of a spectrum to the real signal."""
    import numpy as np

    cosine, sine = _waves(bins, length, length)
    # All but the first, and of an even length the last, stand for their conjugates as well.
    weight = np.full((bins, 1), 2.0)
    weight[0] = 1.0
    if length % 2 == 0 and bins > length // 2:
        weight[length // 2] = 1.0
    rows = np.stack([weight * cosine, -weight * sine], 1) / length
    return rows.reshape(bins * 2, length)


def _waves(rows: int, length: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and sine of 2 pi row column / length, the angle reduced exactly."""
    import numpy as np

    turns = np.outer(np.arange(rows), np.arange(columns)) % length
    angles = 2 * np.pi * turns / length
    return np.cos(angles), np.sin(angles)


def is_small(rows: int, columns: int) -> bool:
    """Whether a matrix is worth its size."""
    return rows * columns <= _LARGEST_MATRIX


def multiplied(node: Node, data: Any, factors: np.ndarray) -> Any:
    """``data`` [..., rows] by a matrix, in the data's type."""
    from tvm import relax

    return node.emit(relax.op.matmul(data, constant(factors, dtype_of(data))))


def transformed(node: Node, signal: Any, length: int, *, inverse: bool) -> Any:
    """The whole spectrum [count, length, 2] of [count, length, channels]."""
    count, _, channels = shape_of(signal)
    first = _factor(node, length)
    rows = length * channels
    if is_small(rows, length * 2) or first == 1:
        flat = node.emit(reshaped(signal, [count, rows]))
        factors = matrix(length, length, length, channels, inverse=inverse)
        return node.emit(reshaped(multiplied(node, flat, factors), [count, length, 2]))
    second = length // first
    parts = _moved(node, signal, [count, first, second, channels], [0, 2, 1, 3])
    parts = node.emit(reshaped(parts, [count * second, first, channels]))
    parts = transformed(node, parts, first, inverse=inverse)
    parts = node.emit(reshaped(parts, [count, second, first, 2]))
    parts = _turned(node, parts, length, inverse=inverse)
    parts = node.emit(reshaped(_moved(node, parts, None, [0, 2, 1, 3]), [count * first, second, 2]))
    parts = transformed(node, parts, second, inverse=inverse)
    parts = _moved(node, parts, [count, first, second, 2], [0, 2, 1, 3])
    return node.emit(reshaped(parts, [count, length, 2]))


def _factor(node: Node, length: int) -> int:
    """The divisor nearest to the square root from below; 1 for a prime."""
    root = math.isqrt(length)
    factor = next(divisor for divisor in range(root, 0, -1) if length % divisor == 0)
    if factor == 1 and length > _LARGEST_PRIME:
        raise node.unsupported(
            f"its length has the prime factor {length}", "choose a length with small prime factors"
        )
    return factor


def _moved(node: Node, data: Any, shape: list[int] | None, order: list[int]) -> Any:
    from tvm import relax

    data = data if shape is None else node.emit(reshaped(data, shape))
    return node.emit(relax.op.permute_dims(data, order))


def _turned(node: Node, parts: Any, length: int, *, inverse: bool) -> Any:
    """[count, second, first, 2], each by the root of unity of the product of its places."""
    import numpy as np

    _, second, first, _ = shape_of(parts)
    cosine, sine = _waves(second, length, first)
    roots = constant(np.stack([cosine, sine if inverse else -sine], -1), dtype_of(parts))

    def kernel(x: Any, w: Any) -> Any:
        from tvm import te, tirx

        def element(i: Any, j: Any, k: Any, part: Any) -> Any:
            real, imaginary = x(i, j, k, 0), x(i, j, k, 1)
            cosine, sine = w(j, k, 0), w(j, k, 1)
            return tirx.Select(
                part == 0, real * cosine - imaginary * sine, real * sine + imaginary * cosine
            )

        return te.compute(x.shape, element)

    return node.compute(kernel, parts, roots)

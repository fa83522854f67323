"""Matrices of Winograd's minimal filtering, for any output and kernel size.

F(m, r) computes m outputs of a filter of r taps from m + r - 1 inputs d with as many products:

    outputs = At [(G g) * (Bt d)]

Winograd, "Arithmetic Complexity of Computations", 1980; for networks: Lavin and Gray, "Fast
Algorithms for Convolutional Neural Networks", CVPR 2016. The matrices follow from Toom and Cook's
interpolation at m + r - 2 points and infinity, in exact fractions; the points are those of least
error for float32 (Barabasz et al., "Error Analysis and Improving the Accuracy of Winograd
Convolution for Deep Neural Networks", 2020).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

_POINTS = tuple(
    Fraction(point) for point in ("0", "1", "-1", "1/2", "-1/2", "2", "-2", "3/2", "-3/2")
)

Matrix = tuple[tuple[Fraction, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Filtering:
    """F(outputs, taps): ``at`` is outputs x inputs, ``g`` inputs x taps, ``bt`` inputs x inputs."""

    outputs: int
    taps: int
    at: Matrix
    g: Matrix
    bt: Matrix

    @property
    def inputs(self) -> int:
        """Inputs, and products, of one application."""
        return self.outputs + self.taps - 1

    @property
    def is_binary(self) -> bool:
        """Whether every factor is a binary fraction: whole numbers then stay exact, while digits last."""
        factors = (
            value for matrix in (self.at, self.g, self.bt) for row in matrix for value in row
        )
        return all(factor.denominator & (factor.denominator - 1) == 0 for factor in factors)


@lru_cache(maxsize=16)
def filtering(outputs: int, taps: int) -> Filtering:
    """The matrices of F(outputs, taps); of F(m, 1) and F(1, r) as well, which save nothing."""
    inputs = outputs + taps - 1
    points = _POINTS[: inputs - 1]
    at = [[point**power for point in points] for power in range(outputs)]
    g = []
    for point in points:
        scale = Fraction(1)
        for other in points:
            scale *= point - other if other != point else 1
        g.append([point**power / scale for power in range(taps)])
    for power in range(outputs):
        at[power].append(Fraction(int(power == outputs - 1)))
    g.append([Fraction(int(power == taps - 1)) for power in range(taps)])
    bt = []
    for point in points:
        bt.append(_padded(_product([other for other in points if other != point]), inputs))
    bt.append(_padded(_product(list(points)), inputs))
    return Filtering(outputs=outputs, taps=taps, at=_frozen(at), g=_frozen(g), bt=_frozen(bt))


def _product(roots: list[Fraction]) -> list[Fraction]:
    """Coefficients, lowest first, of the polynomial with these roots."""
    polynomial = [Fraction(1)]
    for root in roots:
        shifted = [Fraction(0), *polynomial]
        scaled = [*(-root * value for value in polynomial), Fraction(0)]
        polynomial = [a + b for a, b in zip(shifted, scaled, strict=True)]
    return polynomial


def _padded(values: list[Fraction], length: int) -> list[Fraction]:
    return values + [Fraction(0)] * (length - len(values))


def _frozen(rows: list[list[Fraction]]) -> Matrix:
    return tuple(tuple(row) for row in rows)

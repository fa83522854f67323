"""Sizes that are known only with a request: sums of counts, each with a bound.

A count is an int64 scalar that the model computes. A size is ``constant + sum(factor * count)``, so that
equal sizes are equal objects, however the model came by them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, order=True)
class Count:
    """How many rows there are of something, from 0 to ``most``."""

    value: str
    """The int64 scalar in the graph."""
    most: int
    label: str
    """The node that its rows come from, by name."""
    is_source: bool = True
    """Whether it counts all that this node gives."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """A number of rows or elements; also any other integer of that form."""

    constant: int = 0
    terms: tuple[tuple[Count, int], ...] = ()
    """Counts in order, each once, with its factor, which is not 0."""

    @property
    def is_fixed(self) -> bool:
        """Whether it is the same for every request."""
        return not self.terms

    @property
    def most(self) -> int:
        """The greatest value that it can have."""
        return self.constant + sum(max(factor, 0) * count.most for count, factor in self.terms)

    @property
    def least(self) -> int:
        """The smallest value that it can have."""
        return self.constant + sum(min(factor, 0) * count.most for count, factor in self.terms)

    @property
    def divisor(self) -> int:
        """The greatest number that divides it whatever the counts are."""
        return math.gcd(self.constant, *(factor for _, factor in self.terms))

    def plus(self, other: Size) -> Size:
        """The sum."""
        return _size(self.constant + other.constant, [*self.terms, *other.terms])

    def times(self, factor: int) -> Size:
        """The product with a number."""
        return _size(self.constant * factor, [(count, f * factor) for count, f in self.terms])

    def minus(self, other: Size) -> Size:
        """The difference."""
        return self.plus(other.times(-1))

    def divided(self, divisor: int) -> Size | None:
        """The quotient where the division leaves no rest, whatever the counts are."""
        if divisor == 0 or self.divisor % divisor:
            return None
        return _size(self.constant // divisor, [(c, f // divisor) for c, f in self.terms])


def fixed(value: int) -> Size:
    """A size that is the same for every request."""
    return Size(constant=int(value))


def counted(count: Count) -> Size:
    """A size that is a count."""
    return Size(terms=((count, 1),))


def _size(constant: int, terms: Iterable[tuple[Count, int]]) -> Size:
    total: dict[Count, int] = {}
    for count, factor in terms:
        total[count] = total.get(count, 0) + factor
    kept = sorted((count, factor) for count, factor in total.items() if factor)
    return Size(constant=constant, terms=tuple(kept))


@dataclass(frozen=True, kw_only=True)
class Product:
    """A product of sizes in its one form: a number, and what is left of those that are not fixed."""

    factor: int = 1
    sizes: tuple[Size, ...] = ()

    @property
    def most(self) -> int:
        """The greatest value that it can have."""
        return self.factor * math.prod(size.most for size in self.sizes)

    def times(self, size: Size) -> Product:
        """The product with one more size."""
        if size.is_fixed:
            return Product(factor=self.factor * size.constant, sizes=self.sizes)
        divisor = size.divisor
        rest = size.divided(divisor)
        assert rest is not None
        sizes = sorted([*self.sizes, rest], key=lambda s: (s.constant, s.terms))
        return Product(factor=self.factor * divisor, sizes=tuple(sizes))

    def divided(self, other: Product) -> Product | None:
        """The quotient where the division leaves no rest."""
        sizes = list(self.sizes)
        for size in other.sizes:
            if size not in sizes:
                return None
            sizes.remove(size)
        if other.factor == 0 or self.factor % other.factor:
            return None
        return Product(factor=self.factor // other.factor, sizes=tuple(sizes))

    @property
    def size(self) -> Size | None:
        """The same as a size, where no two counts are multiplied."""
        if len(self.sizes) > 1:
            return None
        return self.sizes[0].times(self.factor) if self.sizes else fixed(self.factor)


def product(sizes: Iterable[Size]) -> Product:
    """The product of sizes."""
    result = Product()
    for size in sizes:
        result = result.times(size)
    return result

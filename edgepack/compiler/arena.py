"""Where each tensor lies in the arena: greedily, over live ranges.

After Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference", 2020, section 5.2,
whose order by size comes close to the largest live set; where it does not, other orders are tried.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

ALIGNMENT = 64
"""Bytes; TVM's kernels assume it of every tensor, and edgepack.h promises it."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """``nbytes`` that must stay from call ``first`` to call ``last``, both included."""

    nbytes: int
    first: int
    last: int


def lay_out(spans: Sequence[Span]) -> tuple[list[int], int]:
    """An offset for each span, and the arena's bytes: the best of several greedy layouts.

    None of the orders is best for every graph, and none comes with a bound; that they are tried until
    one reaches the largest live set costs little.
    """
    steps = range(max((span.last for span in spans), default=-1) + 1)
    live = [_live_bytes(spans, step) for step in steps]
    peak = max(steps, key=lambda step: live[step], default=0)
    best: list[int] = []
    least = -1
    for order in _orders(spans, peak):
        offsets = _laid_out(spans, order)
        size = max(
            (o + _aligned(span.nbytes) for o, span in zip(offsets, spans, strict=True)), default=0
        )
        if least < 0 or size < least:
            best, least = offsets, size
        if size == max(live, default=0):
            break
    return best, max(least, 0)


def _live_bytes(spans: Sequence[Span], step: int) -> int:
    return sum(_aligned(span.nbytes) for span in spans if span.first <= step <= span.last)


def _orders(spans: Sequence[Span], peak: int) -> list[list[int]]:
    """Orders in which to place them, the one that is usually best first."""

    def size(i: int) -> int:
        return -spans[i].nbytes

    def lifetime(i: int) -> int:
        return spans[i].first - spans[i].last

    def off_peak(i: int) -> bool:
        return not spans[i].first <= peak <= spans[i].last

    keys: list[Callable[[int], tuple[int, ...]]] = [
        lambda i: (size(i), spans[i].first, i),
        lambda i: (off_peak(i), size(i), spans[i].first, i),
        lambda i: (off_peak(i), lifetime(i), size(i), i),
        lambda i: (size(i) * (1 - lifetime(i)), i),
        lambda i: (lifetime(i), size(i), i),
        lambda i: (spans[i].first, size(i), i),
        lambda i: (abs(spans[i].first - peak), size(i), i),
    ]
    return [sorted(range(len(spans)), key=key) for key in keys]


def _laid_out(spans: Sequence[Span], order: list[int]) -> list[int]:
    """Each span in turn at the lowest offset that is free over its live range."""
    offsets = [0] * len(spans)
    placed: list[int] = []
    for i in order:
        span = spans[i]
        busy = sorted(
            (offsets[j], offsets[j] + _aligned(spans[j].nbytes))
            for j in placed
            if spans[j].first <= span.last and span.first <= spans[j].last
        )
        offset = 0
        for start, end in busy:
            if offset + _aligned(span.nbytes) <= start:
                break
            offset = max(offset, end)
        offsets[i] = offset
        placed.append(i)
    return offsets


def _aligned(nbytes: int) -> int:
    """Rounded up to ALIGNMENT; an empty tensor still has an address of its own."""
    return max(nbytes + (-nbytes % ALIGNMENT), ALIGNMENT)

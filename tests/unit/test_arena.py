"""The arena's layout: nothing that is live at the same time overlaps, and little is wasted."""

from __future__ import annotations

import random

import pytest

from edgepack.compiler.arena import ALIGNMENT, Span, lay_out


def largest_live_set(spans: list[Span]) -> int:
    def at(step: int) -> int:
        return sum(
            -(-span.nbytes // ALIGNMENT) * ALIGNMENT
            for span in spans
            if span.first <= step <= span.last
        )

    return max(at(step) for step in range(max(span.last for span in spans) + 1))


def chain(sizes: list[int]) -> list[Span]:
    """Each tensor is made by one call and read by the next."""
    return [Span(nbytes=size, first=i, last=i + 1) for i, size in enumerate(sizes)]


def random_spans(seed: int) -> list[Span]:
    generator = random.Random(seed)
    spans = []
    for _ in range(40):
        first = generator.randrange(60)
        length = generator.choice([1, 1, 1, 2, 3, 20])
        spans.append(Span(nbytes=generator.randrange(1, 5000), first=first, last=first + length))
    return spans


@pytest.mark.parametrize("seed", range(20))
def test_live_tensors_never_overlap(seed: int) -> None:
    spans = random_spans(seed)
    offsets, total = lay_out(spans)
    for i, (one, a) in enumerate(zip(spans, offsets, strict=True)):
        assert a % ALIGNMENT == 0
        assert a + one.nbytes <= total
        for other, b in list(zip(spans, offsets, strict=True))[i + 1 :]:
            if one.first <= other.last and other.first <= one.last:
                assert a + one.nbytes <= b or b + other.nbytes <= a
    assert largest_live_set(spans) <= total <= 1.25 * largest_live_set(spans)


def test_a_chain_takes_its_largest_pair() -> None:
    spans = chain([6400, 128, 12800, 64, 3200, 9600])
    assert lay_out(spans)[1] == largest_live_set(spans)


def test_residuals_of_a_network_take_the_largest_live_set() -> None:
    spans = []
    for block, size in enumerate([8192, 8192, 4096, 4096, 2048, 2048]):
        start = 3 * block
        spans += [
            Span(nbytes=size, first=start, last=start + 3),
            Span(nbytes=4 * size, first=start + 1, last=start + 2),
            Span(nbytes=2 * size, first=start + 2, last=start + 3),
        ]
    assert lay_out(spans)[1] == largest_live_set(spans)


def test_nothing_takes_nothing() -> None:
    assert lay_out([]) == ([], 0)


def test_empty_tensors_have_addresses_of_their_own() -> None:
    offsets, _ = lay_out([Span(nbytes=0, first=0, last=1), Span(nbytes=0, first=0, last=1)])
    assert len(set(offsets)) == 2

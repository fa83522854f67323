"""What was measured, and what follows from it: medians, ratios, geometric means."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.peers import REFERENCE, SELF

TOLERANCE = 1e-3
"""``max|y - ref| / max|ref|`` over which an answer is wrong: what Winograd's transforms may cost."""
_ENOUGH = 5
_ENOUGH_OF_ALL = 0.1
"""Undisturbed iterations, as a part of all: fewer are odd ones. A thread that waits behind another of its own
process, which is at the same work, counts as disturbed too.
"""


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """A model in an engine's own form; ``failure`` says why there is none."""

    engine: str
    model: str
    seconds: float = 0.0
    bytes: int = 0
    artifact: str = ""
    failure: str = ""


@dataclass(frozen=True, kw_only=True)
class Round:
    """One run of an engine's process."""

    undisturbed_ns: Sequence[int]
    disturbed_ns: Sequence[int]
    error: float
    cold_start_ms: float
    resident_bytes: int


@dataclass(frozen=True, kw_only=True)
class Figures:
    """One engine on one model with one number of threads; zeros where ``failure`` is set."""

    engine: str
    model: str
    threads: int
    median_ms: float = 0.0
    iterations: int = 0
    undisturbed: float = 0.0
    """Share of the iterations that were not preempted."""
    settled: bool = True
    """Whether those were enough for the median to be over them alone."""
    error: float = 0.0
    cold_start_ms: float = 0.0
    resident_bytes: int = 0
    failure: str = ""

    @property
    def right(self) -> bool:
        """Whether its time counts."""
        return not self.failure and self.error <= TOLERANCE


@dataclass(frozen=True, kw_only=True)
class Results:
    """Everything that a run has measured."""

    about: Mapping[str, str]
    """Machine, date and so on, by what they are called."""
    versions: Mapping[str, Mapping[str, str]]
    """Of each engine's packages."""
    shipped: Mapping[str, int]
    """Bytes of the libraries that an engine needs on a device; 0 where that cannot be told."""
    flops: Mapping[str, int]
    """Of each model; 0 where not every operator's is known."""
    peak_gflops: float
    """One core's multiply-adds as measured; 0 where they were not."""
    conversions: Sequence[Conversion]
    figures: Sequence[Figures]
    rounds: int
    seconds: float
    costs: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Of edgepack's own compilation of each model: sizes by name."""

    def to_dict(self) -> dict[str, Any]:
        """As results.json holds it; files by their names, for where they were says nothing."""
        content = asdict(self)
        for conversion in content["conversions"]:
            conversion["artifact"] = Path(conversion["artifact"]).name
        return content

    def of(self, engine: str, model: str, threads: int) -> Figures | None:
        """What was measured of one engine; None where it was not asked."""
        wanted = (engine, model, threads)
        return next((f for f in self.figures if (f.engine, f.model, f.threads) == wanted), None)


def combine(engine: str, model: str, threads: int, rounds: Sequence[Round]) -> Figures:
    """Medians over rounds; the latency's over every undisturbed iteration of all rounds.

    Where too few were undisturbed the median is over all.
    """
    undisturbed = [time for round in rounds for time in round.undisturbed_ns]
    times = [*undisturbed, *(time for round in rounds for time in round.disturbed_ns)]
    settled = len(undisturbed) >= max(_ENOUGH, _ENOUGH_OF_ALL * len(times))
    counted = undisturbed if settled else times
    return Figures(
        engine=engine,
        model=model,
        threads=threads,
        median_ms=statistics.median(counted) / 1e6,
        iterations=len(times),
        undisturbed=len(undisturbed) / len(times),
        settled=settled,
        error=max(round.error for round in rounds),
        cold_start_ms=statistics.median(round.cold_start_ms for round in rounds),
        resident_bytes=int(statistics.median(round.resident_bytes for round in rounds)),
    )


def ratio(ours: Figures | None, theirs: Figures | None) -> float | None:
    """How many times as long ours takes; None where either has no right time."""
    if ours is None or theirs is None or not ours.right or not theirs.right:
        return None
    return ours.median_ms / theirs.median_ms


def best_peer(results: Results, model: str, threads: int) -> Figures | None:
    """The fastest engine that is right and is not edgepack."""
    peers = [
        f for f in results.figures
        if f.model == model and f.threads == threads and f.engine != SELF and f.right
    ]  # fmt: skip
    return min(peers, key=lambda f: f.median_ms, default=None)


def ratios(results: Results, model: str, threads: int) -> tuple[float | None, float | None]:
    """edgepack's time to that of the reference, and to that of the best peer."""
    ours = results.of(SELF, model, threads)
    return (
        ratio(ours, results.of(REFERENCE, model, threads)),
        ratio(ours, best_peer(results, model, threads)),
    )


def geometric_mean(values: Iterable[float | None]) -> float | None:
    """Over the values that are there; None where none is."""
    logarithms = [math.log(value) for value in values if value is not None]
    return math.exp(statistics.fmean(logarithms)) if logarithms else None

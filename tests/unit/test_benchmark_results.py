from __future__ import annotations

import dataclasses

import pytest

from benchmarks.results import (
    TOLERANCE,
    Conversion,
    Figures,
    Results,
    Round,
    best_peer,
    combine,
    geometric_mean,
    ratio,
    ratios,
)


def figures(engine: str, median_ms: float, **changes: object) -> Figures:
    made = Figures(engine=engine, model="m", threads=1, median_ms=median_ms, iterations=9)
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def results(*measured: Figures) -> Results:
    return Results(
        about={}, versions={}, shipped={}, flops={}, peak_gflops=0.0, conversions=[],
        figures=measured, rounds=1, seconds=1.0,
    )  # fmt: skip


def a_round(undisturbed: list[int], disturbed: list[int], **changes: float) -> Round:
    values = {"error": 0.0, "cold_start_ms": 1.0, "resident_bytes": 10} | changes
    return Round(undisturbed_ns=undisturbed, disturbed_ns=disturbed, **values)  # type: ignore[arg-type]


def test_the_median_is_over_the_undisturbed_iterations_of_all_rounds() -> None:
    rounds = [a_round([1_000_000] * 3, [90_000_000]), a_round([3_000_000] * 4, [90_000_000] * 9)]
    found = combine("edgepack", "m", 1, rounds)
    assert found.median_ms == 3.0
    assert found.settled
    assert found.iterations == 17
    assert found.undisturbed == pytest.approx(7 / 17)


def test_with_too_few_undisturbed_iterations_the_median_is_over_all_and_says_so() -> None:
    found = combine("edgepack", "m", 1, [a_round([1_000_000], [5_000_000] * 4)])
    assert found.median_ms == 5.0
    assert not found.settled


def test_a_few_undisturbed_iterations_of_many_are_not_taken_for_all() -> None:
    found = combine("edgepack", "m", 2, [a_round([9_000_000] * 9, [1_000_000] * 90)])
    assert found.median_ms == 1.0
    assert not found.settled


def test_the_worst_error_of_the_rounds_counts_and_the_median_start() -> None:
    rounds = [
        a_round([1] * 5, [], error=error, cold_start_ms=start, resident_bytes=size)
        for error, start, size in ((0.1, 5, 30), (0.3, 9, 10), (0.2, 1, 20))
    ]
    found = combine("edgepack", "m", 1, rounds)
    assert (found.error, found.cold_start_ms, found.resident_bytes) == (0.3, 5, 20)
    assert not found.right


def test_a_ratio_needs_two_right_times() -> None:
    ours, theirs = figures("edgepack", 3.0), figures("onnxruntime", 2.0)
    assert ratio(ours, theirs) == 1.5
    assert ratio(ours, None) is None
    assert ratio(dataclasses.replace(ours, failure="no"), theirs) is None
    assert ratio(ours, dataclasses.replace(theirs, error=2 * TOLERANCE)) is None


def test_the_best_peer_is_the_fastest_that_is_right_and_not_edgepack() -> None:
    measured = results(
        figures("edgepack", 0.5),
        figures("onnxruntime", 4.0),
        figures("openvino", 2.0),
        figures("ncnn", 1.0, error=0.5),
        figures("iree", 0.0, failure="no"),
        figures("litert", 0.1, threads=2),
        figures("litert", 0.1, model="other"),
    )
    best = best_peer(measured, "m", 1)
    assert best is not None
    assert best.engine == "openvino"
    assert ratios(measured, "m", 1) == (0.125, 0.25)
    assert ratios(measured, "missing", 1) == (None, None)


def test_a_geometric_mean_leaves_out_what_is_not_there() -> None:
    assert geometric_mean([0.5, None, 2.0]) == pytest.approx(1.0)
    assert geometric_mean([0.25]) == pytest.approx(0.25)
    assert geometric_mean([None]) is None


def test_the_written_results_name_no_place_of_the_machine() -> None:
    converted = Conversion(engine="ncnn", model="m", artifact="/home/someone/cache/m.bin")
    written = dataclasses.replace(results(), conversions=[converted]).to_dict()
    assert written["conversions"][0]["artifact"] == "m.bin"

from __future__ import annotations

import dataclasses
import json

import pytest

from benchmarks import report
from benchmarks.peers import PEERS
from benchmarks.results import Conversion, Figures, Results

MODEL = "tiny_kws"


def figures(engine: str, median_ms: float, threads: int = 1, **changes: object) -> Figures:
    made = Figures(
        engine=engine, model=MODEL, threads=threads, median_ms=median_ms, iterations=50,
        cold_start_ms=12.34, resident_bytes=5_600_000,
    )  # fmt: skip
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


@pytest.fixture
def results() -> Results:
    return Results(
        about={"date": "2026-01-02", "processor": "CPU, 4 cores"},
        versions={"edgepack": {"edgepack": "1.2"}, "onnxruntime": {"onnxruntime": "3.4"}},
        shipped={"edgepack": 700_000, "onnxruntime": 36_000_000, "executorch": 0},
        flops={MODEL: 5_000_000},
        peak_gflops=100.0,
        conversions=[
            Conversion(engine="edgepack", model=MODEL, seconds=2.5, bytes=150_000),
            Conversion(engine="onnxruntime", model=MODEL, bytes=90_000),
            Conversion(engine="ncnn", model=MODEL, failure="no layer for LSTM"),
        ],
        figures=[
            figures("edgepack", 0.1),
            figures("onnxruntime", 0.2),
            figures("openvino", 0.05, settled=False),
            figures("ncnn", 0.0, failure="no layer for a|b"),
            figures("litert", 0.01, error=0.92),
            figures("executorch", 0.3),
            figures("edgepack", 0.1, threads=2),
            figures("onnxruntime", 0.1, threads=2),
        ],
        rounds=3,
        seconds=0.5,
        costs={MODEL: {"worker_bytes": 41_000, "arena_bytes": 144_000}},
    )


def section(text: str, title: str) -> list[list[str]]:
    """The cells of the last table of a section, its head first."""
    body = text.split(f"## {title}\n")[1].split("\n## ")[0]
    lines = body.strip().split("\n\n")[-1].splitlines()
    return [line.strip("| ").split(" | ") for line in lines if not line.startswith("| ---")]


def test_a_row_has_every_engine_and_both_ratios(results: Results) -> None:
    head, row, mean = section(report.render(results), "Latency, one thread")
    cells = dict(zip(head, row, strict=True))
    assert cells["model"] == "MLPerf Tiny keyword spotting"
    assert cells["GFLOP"] == "0.005"
    assert cells["edgepack ms"] == "0.1"
    assert cells["OpenVINO ms"] == "~0.05"
    assert cells["ncnn ms"] == "fails"
    assert cells["LiteRT ms"] == "wrong"
    assert cells["to ONNX Runtime"] == "0.50"
    assert cells["to the best peer"] == "2.00"
    assert cells["share of FMA peak"] == "50%"
    assert mean[0] == "geometric mean"
    assert [cell for cell in mean if cell.startswith("**")] == ["**0.50**", "**2.00**"]


def test_threads_have_a_table_each_and_share_the_peak_of_their_cores(results: Results) -> None:
    head, row, _ = section(report.render(results), "Latency, 2 threads")
    cells = dict(zip(head, row, strict=True))
    assert cells["to ONNX Runtime"] == "1.00"
    assert cells["share of FMA peak"] == "25%"


def test_starts_are_shown_where_they_compare(results: Results) -> None:
    head, row = section(report.render(results), "Cold start and memory")
    assert "ExecuTorch ms / MB" not in head
    assert dict(zip(head, row, strict=False))["edgepack ms / MB"] == "12.3 / 5.6"


def test_sizes_leave_out_what_cannot_be_told(results: Results) -> None:
    text = report.render(results)
    head, row = section(text, "Size, and time to compile")
    cells = dict(zip(head, row, strict=False))
    assert cells["edgepack s / MB"] == "2.5 / 0.15"
    assert "ONNX Runtime s / MB" not in head  # it converts nothing
    assert (cells["worker KB"], cells["arena KB"]) == ("41", "144")
    assert "| ONNX Runtime | 36.0 |" in text
    assert "| ExecuTorch | 0.0 |" not in text


def test_what_fails_says_why_and_cannot_break_the_table(results: Results) -> None:
    rows = section(report.render(results), "What fails")
    assert ["ncnn", "MLPerf Tiny keyword spotting", r"no layer for a\|b"] in rows
    assert ["LiteRT", "MLPerf Tiny keyword spotting", "error 0.92"] in rows


def test_without_a_peak_there_is_no_share_of_it(results: Results) -> None:
    assert "FMA peak" not in report.render(dataclasses.replace(results, peak_gflops=0.0))


def test_machine_and_versions_are_named(results: Results) -> None:
    text = report.render(results)
    assert "2026-01-02; CPU, 4 cores; edgepack 1.2, onnxruntime 3.4." in text


def test_results_are_json(results: Results) -> None:
    read = json.loads(json.dumps(results.to_dict()))
    assert read["figures"][0]["median_ms"] == 0.1
    assert read["conversions"][2]["failure"] == "no layer for LSTM"


@pytest.mark.parametrize("engine", PEERS)
def test_every_engine_names_itself_and_its_packages(engine: str) -> None:
    peer = PEERS[engine]
    assert peer.TITLE
    assert peer.PACKAGES
    assert all(callable(getattr(peer, name)) for name in ("convert", "start", "shipped"))

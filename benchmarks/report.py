"""RESULTS.md: what was measured, on what, and when."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks.measure import Measurement, Starts

RESULTS = Path(__file__).with_name("RESULTS.md")


def write(measurements: Sequence[Measurement], starts: Starts, rounds: int, seconds: float) -> None:
    """Write RESULTS.md."""
    sections = [
        "# Beside ONNX Runtime",
        "Written by `make bench`. Both compute the same model on the same core, one thread, batch 1, in "
        f"turns: {rounds} rounds of {seconds:g} s for each; the latency is the median of the rounds' "
        "medians. Times hold only within this run; the ratio is what to compare: over 1, edgepack is "
        "slower.",
        _machine(starts.load),
        "## Latency\n\n" + _latency(measurements),
        "## Size, start and memory\n\n"
        "Worker and weights are what a device gets for a model, beside one agent. Ready is when the "
        "worker has mapped its weights and has its memory. Cold start is from "
        "the process's start to the first answer, warm page cache; for ONNX Runtime it includes its "
        "import from Python, but not Python's own start. Resident is the peak.\n\n"
        + _sizes(measurements),
        "## Starts\n\n" + _starts(starts),
    ]
    RESULTS.write_text("\n\n".join(sections) + "\n", encoding="utf-8")


def _machine(load: float) -> str:
    cpuinfo = Path("/proc/cpuinfo").read_text()
    found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    cpu = found[1] if found else platform.machine()
    packages = ", ".join(
        f"{name} {version(name)}" for name in ("edgepack", "apache-tvm", "ziglang", "onnxruntime")
    )
    return (
        f"{datetime.now(UTC):%Y-%m-%d}; {cpu}, {os.cpu_count()} cores, load {load:.1f} at the start; "
        f"{platform.freedesktop_os_release()['PRETTY_NAME']}; "
        f"Python {platform.python_version()}, {packages}."
    )


def _latency(measurements: Sequence[Measurement]) -> str:
    head = ("model", "GFLOP", "edgepack ms", "ONNX Runtime ms", "ratio", "largest error")
    rows = []
    for item in measurements:
        gflop = "" if item.flops is None else f"{item.flops / 1e9:.3g}"
        theirs = _digits(item.peer_ms)
        if item.failure:
            rows.append((item.name, gflop, item.failure, theirs, "", ""))
        else:
            ratio = f"{item.edgepack_ms / item.peer_ms:.2f}"
            rows.append(
                (item.name, gflop, _digits(item.edgepack_ms), theirs, ratio, f"{item.error:.1e}")
            )
    return _table(head, rows)


def _sizes(measurements: Sequence[Measurement]) -> str:
    head = (
        *(
            "model",
            "worker KB",
            "weights KB",
            "arena KB",
            "ready ms",
            "cold start ms",
            "resident MB",
        ),
        *("model file KB", "ONNX Runtime cold start ms", "resident MB"),
    )
    rows = [
        (
            item.name,
            *(f"{count / 1000:.0f}" for count in (item.worker, item.weights, item.arena)),
            f"{item.ready_ms:.1f}",
            f"{item.cold_start_ms:.1f}",
            f"{item.peak_rss / 1e6:.1f}",
            f"{item.model_file / 1000:.0f}",
            f"{item.peer_cold_start_ms:.0f}",
            f"{item.peer_peak_rss / 1e6:.1f}",
        )
        for item in measurements
        if not item.failure
    ]
    return _table(head, rows)


def _digits(value: float) -> str:
    """Three significant digits, without an exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _starts(starts: Starts) -> str:
    rows = [
        ("`edgepack --help`, ms", f"{starts.help_ms:.0f}"),
        ("agent for aarch64, KB", f"{starts.agent_bytes / 1000:.0f}"),
        ("ONNX Runtime's library here, KB", f"{starts.peer_library_bytes / 1000:.0f}"),
    ]
    return _table(("what", "figure"), rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)

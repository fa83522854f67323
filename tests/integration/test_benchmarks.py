"""The benchmark itself, for a moment: edgepack and ONNX Runtime on the smallest model."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def benchmark(cache: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run in this Python, for the peers too; compiled runtimes come from the usual cache."""
    command = [sys.executable, "-m", "benchmarks", *options]
    command += ["--peers-python", sys.executable, "--folder", str(cache)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_a_part_of_it_gives_both_times_and_their_ratio(tmp_path: Path) -> None:
    before = (ROOT / "benchmarks/RESULTS.md").read_bytes()
    options = ("--models", "tiny_ad", "--engines", "edgepack,onnxruntime", "--threads", "1")
    done = benchmark(tmp_path, *options, "--rounds", "1", "--seconds", "0.05")
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("| MLPerf Tiny anomaly")]
    cells = [cell.strip("~ ") for cell in lines[0].strip("| ").split("|")]
    edgepack, onnx_runtime, ratio = map(float, cells[2:5])
    assert edgepack > 0
    assert ratio == pytest.approx(edgepack / onnx_runtime, rel=0.02, abs=0.006)
    assert (ROOT / "benchmarks/RESULTS.md").read_bytes() == before
    assert "What fails" not in done.stdout


def test_a_peer_that_is_not_there_fails_and_the_others_are_measured(tmp_path: Path) -> None:
    options = ("--models", "tiny_ad", "--engines", "iree,onnxruntime", "--threads", "1")
    done = benchmark(tmp_path, *options, "--rounds", "1", "--seconds", "0.05")
    assert done.returncode == 0, done.stderr
    assert "iree fails (" in done.stderr
    assert "onnxruntime 0." in done.stderr


@pytest.mark.parametrize(
    ("option", "value"), [("--models", "nonesuch"), ("--engines", "nonesuch"), ("--threads", "x")]
)
def test_what_does_not_exist_is_refused_with_what_does(
    tmp_path: Path, option: str, value: str
) -> None:
    done = benchmark(tmp_path, option, value)
    assert done.returncode == 2
    assert value in done.stderr
    assert not os.listdir(tmp_path)

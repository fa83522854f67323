"""Measures edgepack and ONNX Runtime in turns, each in a process of its own on one and the same core."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.models import Model


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One model, measured in both; times are medians over rounds. Zeros where ``failure`` is set."""

    name: str
    flops: int | None
    failure: str
    """Why edgepack could not compile it; empty where it could."""
    error: float
    """Largest difference from ONNX Runtime's output, relative to its largest value."""
    edgepack_ms: float
    ready_ms: float
    """From the worker's start until it is ready: weights mapped, memory there."""
    cold_start_ms: float
    peak_rss: int
    worker: int
    weights: int
    arena: int
    model_file: int
    peer_ms: float
    peer_cold_start_ms: float
    peer_peak_rss: int


@dataclass(frozen=True, kw_only=True)
class Starts:
    """What does not depend on the model; sizes in bytes."""

    load: float
    """Load average when measuring began: well under 1 on a machine that does nothing else."""
    help_ms: float
    agent_bytes: int
    peer_library_bytes: int


def measure(model: Model, place: Path, rounds: int, seconds: float) -> Measurement:
    """Compile ``model`` for this machine and time it, ``rounds`` times in turn with ONNX Runtime."""
    path = model.path
    shapes = [word for shape in model.shapes for word in ("--input", shape)]
    package = place / f"{path.stem}.epk"
    described = edgepack("inspect", path, *shapes)
    compiled = edgepack("compile", path, *shapes, "--target", "host", "-o", package)
    failure = compiled.get("error", {}).get("message", "")
    ours: list[dict[str, Any]] = []
    theirs: list[dict[str, Any]] = []
    for _ in range(rounds):
        if not failure:
            ours.append(edgepack("bench", package, "--threads", 1, "--seconds", seconds))
        command = ["-m", "benchmarks.onnx_runtime", path, seconds, *model.shapes]
        theirs.append(_python(*command))
    target = {} if failure else compiled["targets"][0]
    return Measurement(
        name=model.name,
        flops=described.get("flops"),
        failure=failure,
        error=target.get("check", {}).get("max_relative_error", 0.0),
        edgepack_ms=_median([round["latency_ms"]["median"] for round in ours]),
        ready_ms=_median([round["ready_ms"] for round in ours]),
        cold_start_ms=_median([round["cold_start_ms"] for round in ours]),
        peak_rss=int(_median([round["peak_rss_bytes"] for round in ours])),
        worker=target.get("worker_bytes", 0),
        weights=target.get("weights_bytes", 0),
        arena=target.get("arena_bytes", 0),
        model_file=path.stat().st_size,
        peer_ms=_median([round["median_ms"] for round in theirs]),
        peer_cold_start_ms=_median([round["cold_start_ms"] for round in theirs]),
        peer_peak_rss=int(_median([round["peak_rss_bytes"] for round in theirs])),
    )


def measure_starts() -> Starts:
    """Start of the command line, size of the agent, size of ONNX Runtime's library."""
    import onnxruntime

    from edgepack.targets import load_target
    from edgepack.toolchain import build_agent

    load = os.getloadavg()[0]
    times = []
    for _ in range(11):
        begin = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "edgepack", "--help"], check=True, stdout=subprocess.DEVNULL
        )
        times.append((time.perf_counter() - begin) * 1000)
    libraries = (Path(onnxruntime.__file__).parent / "capi").glob("*.so*")
    return Starts(
        load=load,
        help_ms=statistics.median(times),
        agent_bytes=build_agent(load_target("raspberrypi4")).stat().st_size,
        peer_library_bytes=max(path.stat().st_size for path in libraries),
    )


def stay_on_one_core() -> None:
    """Bind this process, and so its children, to one core."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def edgepack(*arguments: object) -> dict[str, Any]:
    """A command's result, or its error object."""
    return _python("-m", "edgepack", *arguments, "--json")


def _python(*arguments: object) -> dict[str, Any]:
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if not done.stdout.strip():
        sys.exit(f"{command}: {done.stderr.strip()}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _median(values: list[float]) -> float:
    return statistics.median(values) if values else 0.0

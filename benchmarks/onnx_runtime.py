"""ONNX Runtime in a process of its own: ``python -m benchmarks.onnx_runtime MODEL SECONDS [NAME=DIMS…]``.

Prints one JSON object: latencies with one thread, and the time from the process's start to the first
answer, with Python's own start left out.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
BEGIN = time.perf_counter()

import numpy as np  # noqa: E402 (the clock starts before the imports, which are part of the start)
import onnxruntime  # noqa: E402


def measure(model: Path, seconds: float, shapes: dict[str, list[int]]) -> dict[str, float | int]:
    """Time the model on random inputs, for ``seconds`` and at least ten times."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    random = np.random.default_rng(0)
    feeds = {
        item.name: random.random(shapes.get(item.name, item.shape)).astype(_dtype(item.type))
        for item in session.get_inputs()
    }
    session.run(None, feeds)
    first_answer = time.perf_counter() - BEGIN
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 10:
        begin = time.perf_counter()
        session.run(None, feeds)
        times.append(time.perf_counter() - begin)
    status = Path("/proc/self/status").read_text()
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return {
        "median_ms": statistics.median(times) * 1000,
        "cold_start_ms": first_answer * 1000,
        "peak_rss_bytes": int(peak.split()[1]) * 1024,
    }


def _dtype(onnx_type: str) -> str:
    name = onnx_type.removeprefix("tensor(").removesuffix(")")
    return {"float": "float32", "double": "float64"}.get(name, name)


def main() -> None:
    """Read the command line, print the result."""
    model, seconds, *inputs = sys.argv[1:]
    shapes = {name: dims.split(",") for name, _, dims in (item.rpartition("=") for item in inputs)}
    fixed = {name: [int(dim) for dim in dims] for name, dims in shapes.items()}
    print(json.dumps(measure(Path(model), float(seconds), fixed)))


if __name__ == "__main__":
    main()

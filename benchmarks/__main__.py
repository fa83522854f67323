"""edgepack beside ONNX Runtime on pretrained models: ``make bench`` writes RESULTS.md."""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks import report
from benchmarks.measure import measure, measure_starts, stay_on_one_core
from benchmarks.models import MODELS

ROUNDS = 5
SECONDS = 2.0


def main() -> None:
    """Measure every model, then write the report and say where it is."""
    starts = measure_starts()
    stay_on_one_core()
    measurements = []
    with tempfile.TemporaryDirectory(prefix="edgepack-bench-") as place:
        for model in MODELS:
            print(model.name, flush=True)
            measurements.append(measure(model, Path(place), ROUNDS, SECONDS))
    report.write(measurements, starts, ROUNDS, SECONDS)
    print(f"wrote {report.RESULTS}")


if __name__ == "__main__":
    main()

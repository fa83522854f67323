"""edgepack beside its peers: ``make bench`` measures everything and writes RESULTS.md and results.json.

A part of it, quickly:

    python -m benchmarks --models mobilenet_v2,tiny_kws --threads 1 --seconds 0.3
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from benchmarks import machine, report
from benchmarks.measure import Converted, Place, convert, measure
from benchmarks.models import MODELS, prepare
from benchmarks.peers import PEERS, SELF
from benchmarks.results import Figures, Results
from edgepack.errors import EdgepackError
from edgepack.toolchain import cache_directory

_HERE = Path(__file__).parent
_PEERS_PYTHON = _HERE.parent / ".venv-bench/bin/python"


def main() -> None:
    """Measure what the command line asks for, print the report, and write it where asked to."""
    options = _options()
    place = Place(folder=options.folder, python=options.peers_python, fresh=options.write)
    results = run(options, place)
    if options.write:
        (_HERE / "results.json").write_text(json.dumps(results.to_dict(), indent=1) + "\n")
    text = report.render(results)
    if options.write:
        (_HERE / "RESULTS.md").write_text(text, encoding="utf-8")
    print(text)


def run(options: argparse.Namespace, place: Place) -> Results:
    """Every model in turn, in every engine."""
    about = machine.describe()
    if options.write and SELF in options.engines:
        # zig builds its libraries once for a target; no model's compile time is to hold that.
        convert(SELF, prepare("tiny_ad", place.folder), place)
    converted: list[Converted] = []
    figures: list[Figures] = []
    for name in options.models:
        model = prepare(name, place.folder)
        forms = [convert(engine, model, place) for engine in options.engines]
        converted += forms
        for threads in options.threads:
            conversions = [form.conversion for form in forms]
            found = measure(model, conversions, threads, options.rounds, options.seconds, place)
            figures += found
            _say(name, threads, found)
    return Results(
        about=about,
        versions={form.conversion.engine: form.versions for form in converted if form.versions},
        shipped={form.conversion.engine: form.shipped for form in converted if form.shipped},
        flops={name: _flops(name, place) for name in options.models},
        peak_gflops=_peak_gflops(converted),
        conversions=[form.conversion for form in converted],
        figures=figures,
        rounds=options.rounds,
        seconds=options.seconds,
        costs=_costs(converted),
    )


def _say(name: str, threads: int, found: list[Figures]) -> None:
    """A line for those who wait."""
    cells = ", ".join(
        f"{item.engine} {report.cell(item)}" + (f" ({item.failure})" if item.failure else "")
        for item in found
    )
    print(f"{name}, {threads} thread{'s' if threads > 1 else ''}: {cells}", file=sys.stderr)


def _flops(name: str, place: Place) -> int:
    from edgepack.cli.inspection import inspect_model

    return int(inspect_model(place.folder / f"{name}.onnx", {}).get("flops") or 0)


def _peak_gflops(converted: list[Converted]) -> float:
    """What one core reaches, as the worker's own profile measures it; 0 without a package."""
    from edgepack.bench import bench_package
    from edgepack.package import read_package

    packages = [form.conversion.artifact for form in converted if form.conversion.engine == SELF]
    try:
        for file in filter(None, packages):
            opened = read_package(Path(file))
            measured = bench_package(opened, target=None, threads=1, seconds=0.1, profile=True)
            return float(measured["profile"]["peak_gflops"] or 0.0)
    except EdgepackError as error:
        print(f"the core's peak is not known: {error.message}", file=sys.stderr)
    return 0.0


def _costs(converted: list[Converted]) -> dict[str, dict[str, int]]:
    """What edgepack's compile command says of each package."""
    costs: dict[str, dict[str, int]] = {}
    for form in converted:
        if form.conversion.engine == SELF and not form.conversion.failure:
            answer = json.loads(
                Path(form.conversion.artifact).with_name("compile.json").read_text()
            )
            target = answer["targets"][0]
            costs[form.conversion.model] = {
                key: value for key, value in target.items() if key.endswith("_bytes")
            }
    return costs


def _options() -> argparse.Namespace:
    """The command line, names checked."""
    python = _PEERS_PYTHON if _PEERS_PYTHON.exists() else Path(sys.executable)
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--models", type=_names(MODELS), default=",".join(MODELS), metavar="A,B")
    add("--engines", type=_names(PEERS), default=",".join(PEERS), metavar="A,B")
    add("--threads", type=_counts, default="1,all", metavar="N,N")
    add("--rounds", type=int, default=5, metavar="N", help="how often each engine is started")
    add("--seconds", type=float, default=1.0, metavar="S", help="of each engine in each round")
    add("--write", action="store_true", help="convert all anew; write RESULTS.md, results.json")
    add("--peers-python", type=Path, default=python, metavar="FILE", help="has the peers")
    add("--folder", type=Path, default=cache_directory() / "benchmarks", help="of all models")
    return parser.parse_args()


def _names(known: Iterable[str]) -> Callable[[str], list[str]]:
    """Takes apart a list of names, each one of ``known``."""

    def parse(text: str) -> list[str]:
        names = [name for name in text.split(",") if name]
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return names

    return parse


def _counts(text: str) -> list[int]:
    """``1,all`` as numbers of threads, each once, and none that this machine has no cores for."""
    available = len(os.sched_getaffinity(0))
    try:
        counts = [available if word == "all" else int(word) for word in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not like 1,2,all") from error
    return sorted({count for count in counts if 1 <= count <= available})


if __name__ == "__main__":
    main()

"""Runs the engines in turn, each in a process of its own, in another order each round."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.models import Prepared
from benchmarks.peers import PEERS, SELF, pnnx
from benchmarks.results import Conversion, Figures, Round, combine

_ROOT = Path(__file__).parents[1]
_CONVERT_LIMIT = 900.0
_MEASURE_LIMIT = 120.0
"""Seconds beside those that are measured."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where things are kept, and which Python has the peers."""

    folder: Path
    python: Path
    fresh: bool = False
    """Convert anew what an earlier run has left."""

    def stamp(self, engine: str) -> str:
        """Changes with the packages of the peers' Python and with the code that converts."""
        folders = self.python.parents[1].glob("lib/*/site-packages/*.dist-info")
        installed = sorted(path.name for path in folders)
        code = [Path(str(PEERS[engine].__file__)), Path(pnnx.__file__)]
        content = [" ".join(installed).encode(), *(path.read_bytes() for path in code)]
        return hashlib.sha256(b"".join(content)).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class Converted:
    """A conversion, and what came with it."""

    conversion: Conversion
    versions: Mapping[str, str]
    shipped: int


def convert(engine: str, model: Prepared, place: Place) -> Converted:
    """The model in the engine's form; a peer's is kept, and used again while nothing has changed."""
    folder = place.folder / engine / f"{model.name}-{model.fingerprint}"
    kept = folder.with_suffix(".json")
    stamp = "" if engine == SELF else place.stamp(engine)
    answer = None
    if stamp and not place.fresh and kept.exists():
        answer = json.loads(kept.read_text()).get(stamp)
    if answer is None or not Path(answer.get("artifact", kept)).exists():
        request = {"do": "convert", "engine": engine, "model": model.onnx, "folder": folder}
        answer = _ask(place, request, _CONVERT_LIMIT)
        folder.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps({stamp: answer}))
    versions, shipped = answer.pop("versions", {}), answer.pop("shipped", 0)
    conversion = Conversion(engine=engine, model=model.name, **answer)
    return Converted(conversion=conversion, versions=versions, shipped=shipped)


def measure(
    model: Prepared,
    conversions: Iterable[Conversion],
    threads: int,
    rounds: int,
    seconds: float,
    place: Place,
) -> list[Figures]:
    """Every engine that has a form of ``model``, ``rounds`` times ``seconds`` each."""
    usable = {c.engine: c for c in conversions if not c.failure}
    failures = {c.engine: c.failure for c in conversions if c.failure}
    done: dict[str, list[Round]] = {engine: [] for engine in usable}
    order = random.Random(model.fingerprint)
    for _ in range(rounds):
        engines = [engine for engine in usable if engine not in failures]
        for engine in order.sample(engines, len(engines)):
            answer = _round(model, usable[engine], threads, seconds, place)
            if "failure" in answer:
                failures[engine] = answer["failure"]
            else:
                done[engine].append(Round(**answer))
    return [
        combine(engine, model.name, threads, done[engine])
        if engine not in failures
        else Figures(engine=engine, model=model.name, threads=threads, failure=failures[engine])
        for engine in (*usable, *(engine for engine in failures if engine not in usable))
    ]


def _round(
    model: Prepared, conversion: Conversion, threads: int, seconds: float, place: Place
) -> dict[str, Any]:
    request = {
        "do": "measure",
        "engine": conversion.engine,
        "artifact": conversion.artifact,
        "vectors": model.vectors,
        "threads": threads,
        "cores": cores(threads),
        "seconds": seconds,
    }
    return _ask(place, request, _MEASURE_LIMIT + seconds)


def cores(threads: int) -> list[int]:
    """The last cores of those we may use: the first one usually takes the interrupts."""
    return sorted(os.sched_getaffinity(0))[-threads:]


def _ask(place: Place, request: Mapping[str, Any], limit: float) -> dict[str, Any]:
    """Let an engine's own process answer; its crash or silence is a failure like any other."""
    python = sys.executable if request["engine"] == SELF else str(place.python)
    command = [python, "-m", "benchmarks.host", json.dumps(request, default=str)]
    environment = os.environ | {"OMP_NUM_THREADS": str(request.get("threads", os.cpu_count()))}
    environment |= {"ORT_DISABLE_TELEMETRY": "1"}
    try:
        done = subprocess.run(
            command, cwd=_ROOT, env=environment, capture_output=True, text=True, timeout=limit
        )
    except subprocess.TimeoutExpired:
        return {"failure": f"no answer within {limit:.0f} s"}
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        words = done.stderr.strip().splitlines()[-1:] or ["without a word"]
        return {"failure": f"exit status {done.returncode}: {words[0][:200]}"}
    return answer

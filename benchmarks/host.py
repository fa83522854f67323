"""One engine in a process of its own: ``python -m benchmarks.host REQUEST``, a JSON object.

    {"do": "convert", "engine": NAME, "model": FILE, "folder": FOLDER}
        → {"artifact": FILE, "seconds": S, "bytes": N, "versions": {…}, "shipped": N}
    {"do": "measure", "engine": NAME, "artifact": FILE, "vectors": NPZ, "threads": N, "cores": […],
     "seconds": S}
        → {"undisturbed_ns": […], "disturbed_ns": […], "error": E, "cold_start_ms": M, "resident_bytes": N}

Either answers {"failure": TEXT} where the engine cannot. It runs under the Python that has the engine.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np  # noqa: F401 (before the clock starts: an engine should not pay for it)

from benchmarks import clock
from benchmarks.inputs import Vectors, error, load_vectors
from benchmarks.peers import PEERS
from benchmarks.peers.protocol import Session

_WARM_UP = 3
_WARM_UP_NS = 100_000_000


def convert(request: Mapping[str, Any]) -> dict[str, Any]:
    """Make the engine's form of the model."""
    peer = PEERS[request["engine"]]
    folder = Path(request["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    artifact = peer.convert(Path(request["model"]), folder)
    seconds = time.monotonic() - begin
    return {
        "artifact": str(artifact),
        "seconds": seconds,
        "bytes": artifact.stat().st_size,
        "versions": {name: version(name) for name in peer.PACKAGES},
        "shipped": sum(path.stat().st_size for path in peer.shipped()),
    }


def measure(request: Mapping[str, Any]) -> dict[str, Any]:
    """Start, check both answers, warm up, and time."""
    cores = set(request["cores"])
    everywhere = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    vectors = load_vectors(Path(request["vectors"]))
    before = clock.peak_bytes(os.getpid())
    session = PEERS[request["engine"]].start(Path(request["artifact"]), request["threads"])
    try:
        session.feed(vectors.inputs[0])
        session.run()
        cold_start_ns = time.monotonic_ns() - session.began_ns
        resident = clock.peak_bytes(session.pid)
        own_process = session.pid != os.getpid()
        if own_process and everywhere - cores:
            os.sched_setaffinity(0, everywhere - cores)
        worst = _check(session, vectors)
        _warm_up(session)
        times = clock.measure(session, request["seconds"])
    finally:
        session.close()
    return {
        "undisturbed_ns": times.undisturbed,
        "disturbed_ns": times.disturbed,
        "error": worst,
        "cold_start_ms": cold_start_ns / 1e6,
        "resident_bytes": resident - (0 if own_process else before),
    }


def _check(session: Session, vectors: Vectors) -> float:
    """The largest error over both inputs; a stale answer is right for one of them at most."""
    errors = []
    for inputs, answers in zip(vectors.inputs, vectors.answers, strict=True):
        session.feed(inputs)
        session.run()
        errors.append(error(session.answers(), answers))
    return max(errors)


def _warm_up(session: Session) -> None:
    until = time.monotonic_ns() + _WARM_UP_NS
    runs = 0
    while runs < _WARM_UP or time.monotonic_ns() < until:
        session.run()
        runs += 1


_TASKS: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "convert": convert,
    "measure": measure,
}


def main() -> None:
    """Answer one request; whatever an engine prints goes to stderr."""
    answer = os.dup(1)
    os.dup2(2, 1)
    request = json.loads(sys.argv[1])
    try:
        result = _TASKS[request["do"]](request)
    except Exception as failure:  # engines raise whatever they like, and all of it is a result
        lines = str(failure).strip().splitlines() or [type(failure).__name__]
        result = {"failure": lines[0].replace(request.get("folder", "\0"), "")[:300]}
    with os.fdopen(answer, "w") as file:
        json.dump(result, file)
    sys.stderr.flush()
    os._exit(0)  # without the engines' own ends, some of which crash


if __name__ == "__main__":
    main()

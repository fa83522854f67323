from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmarks import measure
from benchmarks.measure import Place
from benchmarks.models import Prepared
from benchmarks.results import Conversion

ROUND = {
    "undisturbed_ns": [2_000_000] * 5, "disturbed_ns": [], "error": 0.0, "cold_start_ms": 1.0,
    "resident_bytes": 1,
}  # fmt: skip


class Engines:
    """Answers in place of engines' processes, and keeps what they were asked."""

    def __init__(self) -> None:
        self.asked: list[Mapping[str, Any]] = []
        self.failing: dict[str, str] = {}

    def __call__(self, place: Place, request: Mapping[str, Any], limit: float) -> dict[str, Any]:
        self.asked.append(request)
        if reason := self.failing.get(request["engine"]):
            return {"failure": reason}
        if request["do"] == "measure":
            return dict(ROUND)
        made = {
            "artifact": __file__,
            "seconds": 1.5,
            "bytes": 7,
            "versions": {"x": "1"},
            "shipped": 9,
        }
        return dict(made)


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> Engines:
    made = Engines()
    monkeypatch.setattr(measure, "_ask", made)
    return made


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(folder=tmp_path, python=Path(sys.executable))


MODEL = Prepared(name="m", onnx=Path("m.onnx"), vectors=Path("m.npz"), fingerprint="f00")


def test_a_peers_conversion_is_kept_even_where_it_failed(engines: Engines, place: Place) -> None:
    engines.failing["ncnn"] = "no layer"
    first = [measure.convert(engine, MODEL, place) for engine in ("iree", "ncnn")]
    again = [measure.convert(engine, MODEL, place) for engine in ("iree", "ncnn")]
    assert again == first
    assert len(engines.asked) == 2
    assert first[0].conversion == Conversion(
        engine="iree", model="m", seconds=1.5, bytes=7, artifact=__file__
    )
    assert (first[0].versions, first[0].shipped) == ({"x": "1"}, 9)
    assert first[1].conversion.failure == "no layer"


def test_edgepack_is_compiled_every_time(engines: Engines, place: Place) -> None:
    for _ in range(2):
        measure.convert("edgepack", MODEL, place)
    assert len(engines.asked) == 2


@pytest.mark.parametrize("changed", ["model", "converter", "wish"])
def test_a_change_converts_anew(
    changed: str, engines: Engines, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure.convert("iree", MODEL, place)
    model = MODEL
    if changed == "model":
        model = dataclasses.replace(MODEL, fingerprint="f11")
    elif changed == "converter":
        monkeypatch.setattr(Place, "stamp", lambda self, engine: "another")
    else:
        place = dataclasses.replace(place, fresh=True)
    measure.convert("iree", model, place)
    assert len(engines.asked) == 2


def conversions(*names: str, failed: str = "") -> list[Conversion]:
    made = [Conversion(engine=name, model="m", artifact="a") for name in names]
    return [*made, Conversion(engine=failed, model="m", failure="no")] if failed else made


def test_engines_take_turns_in_changing_order(engines: Engines, place: Place) -> None:
    names = ["edgepack", "onnxruntime", "openvino", "iree"]
    found = measure.measure(MODEL, conversions(*names, failed="ncnn"), 1, 6, 0.5, place)
    asked = [request["engine"] for request in engines.asked]
    rounds = [asked[start : start + 4] for start in range(0, len(asked), 4)]
    assert len(rounds) == 6
    assert all(sorted(order) == sorted(names) for order in rounds)
    assert len({tuple(order) for order in rounds}) > 1
    assert {item.engine: item.failure for item in found} == dict.fromkeys(names, "") | {
        "ncnn": "no"
    }
    assert {item.median_ms for item in found if not item.failure} == {2.0}


def test_an_engine_that_fails_once_is_not_started_again(engines: Engines, place: Place) -> None:
    engines.failing["iree"] = "crashed"
    found = measure.measure(MODEL, conversions("edgepack", "iree"), 1, 3, 0.5, place)
    assert [request["engine"] for request in engines.asked].count("iree") == 1
    assert [item.failure for item in found] == ["", "crashed"]


def test_each_thread_has_a_core_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {5, 2, 3})
    assert measure.cores(1) == [5]
    assert measure.cores(2) == [3, 5]


def test_a_process_that_dies_or_prints_nonsense_is_a_failure(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho nonsense\necho last words >&2\nexit 3\n")
    python.chmod(0o700)
    place = Place(folder=tmp_path, python=python)
    found = measure.convert("iree", MODEL, place)
    assert found.conversion.failure == "exit status 3: last words"

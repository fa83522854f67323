"""The model repository extension: what is there, loading and unloading."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.native.fake_device import Device, FakeModel, request, run_in_progress, wait_until

pytestmark = pytest.mark.also_on("aarch64")

INFER = "/v2/models/m/infer"
INDEX = "/v2/repository/index"
LOAD = "/v2/repository/models/m/load"
UNLOAD = "/v2/repository/models/m/unload"
ONES = request([1, 1, 1, 1])


@pytest.fixture
def served(idle: Device) -> Iterator[Device]:
    idle.install("n", {"2.0.0": FakeModel(tag=2)})
    with idle.serving():
        yield idle


@pytest.mark.also_on("armv7", "riscv64")
def test_an_unloaded_model_is_gone_until_it_is_loaded_again(served: Device) -> None:
    assert len(served.workers()) == 2
    for _ in range(2):  # the second time there is nothing left to do
        parameters = {"parameters": {"unload_dependents": False}}
        assert served.ask("POST", UNLOAD, parameters) == (200, {"name": "m"})
        wait_until(lambda: len(served.workers()) == 1)
        unavailable = {"error": "model m is not ready: unloaded"}
        assert served.ask("POST", INFER, ONES) == (503, unavailable)
        assert served.ask("GET", "/v2/models/m/ready") == (503, unavailable)
        index = {entry["name"]: entry for entry in served.ask("POST", INDEX)[1]}
        entry = {"name": "m", "version": "", "state": "UNAVAILABLE", "reason": "unloaded"}
        assert index["m"] == entry
        assert index["n"]["state"] == "READY"
        # Nothing is wrong with a model that somebody unloaded.
        assert served.ask("GET", "/v2/health/ready")[0] == 200
        assert served.ask("POST", "/v2/models/n/infer", ONES)[0] == 200
    assert served.ask("POST", LOAD, {}) == (200, {"name": "m", "version": "1.0.0"})
    assert served.ask("POST", INFER, ONES)[0] == 200
    assert served.ask("GET", "/v2/models/m/ready")[0] == 200


def test_the_index_lists_what_is_asked_for(served: Device) -> None:
    served.ask("POST", UNLOAD)

    def listed(body: Any) -> list[str]:
        status, index = served.ask("POST", INDEX, body)
        assert status == 200
        return sorted(entry["name"] for entry in index)

    assert listed({"ready": True}) == ["n"]
    for body in (None, {}, {"ready": False}, {"later": 1}):
        assert listed(body) == ["m", "n"]
    served.ask("POST", "/v2/repository/models/n/unload")
    assert listed({"ready": True}) == []


def test_a_run_in_progress_ends_before_its_worker_does(served: Device) -> None:
    served.ask("POST", "/v2/repository/models/n/unload")
    wait_until(lambda: len(served.workers()) == 1)
    with run_in_progress(served, -1004) as answers:
        assert served.ask("POST", UNLOAD)[0] == 200
        assert len(served.workers()) == 1
        assert served.ask("POST", INFER, ONES)[0] == 503
    assert answers[0][0] == 200
    wait_until(lambda: served.workers() == [])


def test_what_load_and_unload_cannot_do_is_refused(served: Device) -> None:
    for path, parameter in ((LOAD, "config"), (LOAD, "file:1/model.onnx"), (UNLOAD, "other")):
        verb = path.rpartition("/")[2]
        assert served.ask("POST", path, {"parameters": {parameter: "x"}}) == (
            400,
            {
                "error": f'{verb} takes no parameter "{parameter}": a model is served as it was installed'
            },
        )
    assert served.ask("POST", LOAD, b"{")[0] == 400
    assert served.ask("POST", INDEX, {"ready": "yes"})[0] == 400
    assert served.ask("POST", INDEX, b" " * 100_000)[0] == 413
    assert served.ask("GET", UNLOAD)[0] == 405
    assert served.ask("POST", "/v2/repository/models/other/unload") == (
        404,
        {"error": "no model other"},
    )
    assert served.ask("POST", INFER, ONES)[0] == 200


def test_paths_with_a_version_are_those_of_that_version_only(served: Device) -> None:
    for method, rest in (("GET", ""), ("GET", "/ready"), ("POST", "/infer")):
        body = ONES if rest == "/infer" else None
        assert served.ask(method, f"/v2/models/m/versions/1.0.0{rest}", body)[0] == 200
        for version in ("1", "2.0.0", "latest"):
            status, answer = served.ask(method, f"/v2/models/m/versions/{version}{rest}", body)
            expected = {"error": "model m is served in version 1.0.0 only"}
            assert (status, answer) == (404, expected)
    for path in ("/v2/models/m/config", "/v2/models/m/stats", "/v2/models/m/versions/1.0.0/config"):
        assert served.ask("GET", path) == (404, {"error": f"no such path: {path}"})

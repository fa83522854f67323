"""A version that fails again and again while it is served gives way to the one before it."""

from __future__ import annotations

import fcntl
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.native.fake_device import Device, FakeModel, request, run_in_progress, values, wait_until

pytestmark = pytest.mark.also_on("aarch64")

INFER = "/v2/models/m/infer"
LOAD = "/v2/repository/models/m/load"
DIE, HANG = -1002, -1003  # orders of data/fake_model.c
X = request([1, 1, 1, 1])
ONE, TWO, THREE = FakeModel(), FakeModel(tag=2, weight=2), FakeModel(tag=3, weight=3)
TWICE = ("--failures", "2")


def state(device: Device) -> dict[str, Any]:
    """The versions in m's state.json."""
    told = json.loads((device.root / "models" / "m" / "state.json").read_text())
    return {
        "current": told["current"]["version"],
        "previous": told["previous"] and told["previous"]["version"],
        "floor": told["floor"],
    }


def served(device: Device) -> str:
    """The version that answers."""
    status, answer = device.ask("POST", INFER, X)
    assert status == 200, answer
    return str(answer["model_version"])


def fail(device: Device, order: float = DIE) -> None:
    """A request that its worker does not survive, once there is one."""

    def died() -> bool:
        status, answer = device.ask("POST", INFER, request([order, 0, 0, 0]))
        assert status in (500, 503), answer
        return status == 500

    wait_until(died)


def index(device: Device) -> dict[str, str]:
    (entry,) = device.ask("POST", "/v2/repository/index")[1]
    return dict(entry)


def events(device: Device, *kinds: str) -> list[dict[str, Any]]:
    told = device.ask("GET", "/v2/events")[1]["events"]
    return [event for event in told if event["event"] in kinds]


def recorded(device: Device, *kinds: str) -> list[dict[str, Any]]:
    """The events of these kinds, once there are any: they come after what they tell of."""
    wait_until(lambda: events(device, *kinds) != [])
    return events(device, *kinds)


def metric(device: Device, name: str, version: str) -> int:
    connection = device.connect()
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return int(text.split(f'{name}{{model="m",version="{version}"}} ')[1].split()[0])


@contextmanager
def store_in_use(device: Device) -> Iterator[None]:
    """Hold the store's lock, as an installation does."""
    with (device.root / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.mark.parametrize("order", [DIE, HANG])
def test_after_so_many_failures_in_a_row_the_version_before_is_served_and_stays(
    idle: Device, order: float
) -> None:
    idle.install("m", {"1.0.0": ONE, "2.0.0": TWO})
    with idle.serving(*TWICE, "--run-ms", "200"):
        fail(idle, order)
        assert served(idle) == "2.0.0"
        fail(idle, order)
        assert state(idle)["current"] == "2.0.0"  # a run that succeeded came between
        fail(idle, order)
        wait_until(lambda: index(idle)["version"] == "1.0.0")
        status, answer = idle.ask("POST", INFER, X)
        assert (status, values(answer)["y"]) == (200, [2, 2, 2, 2])
        wait_until(lambda: len(idle.workers()) == 1)
        told = index(idle)
        assert (told["state"], "version 2.0.0 failed 2 times in a row" in told["reason"]) == (
            "READY",
            True,
        )
        assert "the previous one, 1.0.0, is served" in told["reason"]
        assert state(idle) == {"current": "1.0.0", "previous": "2.0.0", "floor": "2.0.0"}
        (event,) = recorded(idle, "fallback", "failing")
        assert metric(idle, "edgepack_fallbacks_total", "2.0.0") == 1
        assert (event["event"], event["model"], event["version"]) == ("fallback", "m", "2.0.0")
        assert event["reason"] == told["reason"]
    with idle.serving():
        assert (served(idle), index(idle)["reason"]) == ("1.0.0", "")


def test_the_next_request_on_the_connection_that_saw_the_last_failure_is_answered(
    idle: Device,
) -> None:
    idle.install("m", {"1.0.0": ONE, "2.0.0": TWO})
    with idle.serving("--failures", "1"):
        connection = idle.connect()
        assert connection.ask("POST", INFER, request([DIE, 0, 0, 0]))[0] == 500
        status, answer = connection.ask("POST", INFER, X)
        assert (status, answer["model_version"]) == (200, "1.0.0")
        connection.close()


def test_the_version_fallen_back_to_does_not_give_way_to_the_one_that_failed(idle: Device) -> None:
    idle.install("m", {"1.0.0": ONE, "2.0.0": TWO})
    with idle.serving("--failures", "1"):
        fail(idle)
        wait_until(lambda: index(idle)["version"] == "1.0.0")
        for _ in range(3):
            fail(idle)
        wait_until(lambda: events(idle, "failing") != [])
        wait_until(lambda: idle.ask("POST", INFER, X)[0] == 200)
        assert served(idle) == "1.0.0"
        assert state(idle)["current"] == "1.0.0"
        (event,) = events(idle, "failing")
        assert (event["version"], "no version before it" in event["reason"]) == ("1.0.0", True)


def test_a_model_without_a_version_before_it_is_told_once_and_goes_on(idle: Device) -> None:
    with idle.serving(*TWICE):
        for _ in range(5):
            fail(idle)
        wait_until(lambda: events(idle, "failing") != [])
        wait_until(lambda: idle.ask("POST", INFER, X)[0] == 200)
        assert index(idle)["reason"] == ""
        assert len(events(idle, "failing")) == 1
        assert metric(idle, "edgepack_fallbacks_total", "1.0.0") == 0
        assert state(idle)["current"] == "1.0.0"


def test_nothing_is_done_about_failures_where_that_is_set_to_never(idle: Device) -> None:
    idle.install("m", {"1.0.0": ONE, "2.0.0": TWO})
    with idle.serving("--failures", "0"):
        for _ in range(6):
            fail(idle)
        wait_until(lambda: idle.ask("POST", INFER, X)[0] == 200)
        assert served(idle) == "2.0.0"
        assert events(idle, "failing", "fallback") == []


def test_a_version_before_that_does_not_start_leaves_the_failing_one(idle: Device) -> None:
    idle.install("m", {"1.0.0": ONE, "2.0.0": TWO})
    told = json.loads((idle.root / "models" / "m" / "state.json").read_text())
    blob = idle.root / "blobs" / "sha256" / told["previous"]["worker"]
    content = blob.read_bytes()
    blob.chmod(0o755)
    blob.write_bytes(content[:-1] + b"?")
    with idle.serving(*TWICE):
        for _ in range(2):
            fail(idle)
        wait_until(lambda: events(idle, "failing") != [])
        (event,) = events(idle, "failing")
        assert "signal 9" in event["reason"]
        assert "nor does the one before it, 1.0.0, start: the contents of blob" in event["reason"]
        wait_until(lambda: idle.ask("POST", INFER, X)[0] == 200)
        assert (served(idle), state(idle)["current"]) == ("2.0.0", "2.0.0")


def test_while_the_store_is_in_use_the_version_before_is_served_until_the_server_ends(
    idle: Device,
) -> None:
    idle.install("m", {"1.0.0": ONE, "2.0.0": TWO})
    with idle.serving("--failures", "1"), store_in_use(idle):
        fail(idle)
        wait_until(lambda: index(idle)["version"] == "1.0.0")
        assert "is served until the server ends" in index(idle)["reason"]
        assert state(idle)["current"] == "2.0.0"
    with idle.serving():
        assert served(idle) == "2.0.0"


def test_a_version_that_was_loaded_meanwhile_is_not_fallen_back_over(idle: Device) -> None:
    versions = {"1.0.0": ONE, "2.0.0": TWO}
    idle.install("m", versions)
    with idle.serving("--failures", "1"):
        with store_in_use(idle):
            fail(idle)  # 2.0.0 is to give way as soon as the store is free
            idle.install("m", versions | {"3.0.0": THREE})
            assert idle.ask("POST", LOAD)[1]["version"] == "3.0.0"
        fail(idle)  # the version before it, by its manifest the same, is 2.0.0
        wait_until(lambda: index(idle)["version"] == "2.0.0")
        assert state(idle) == {"current": "2.0.0", "previous": "3.0.0", "floor": "3.0.0"}
        assert recorded(idle, "fallback", "failing")[-1]["version"] == "3.0.0"


def test_an_old_version_whose_run_hangs_does_not_take_the_new_one_back(idle: Device) -> None:
    with idle.serving("--failures", "1", "--run-ms", "1500"):
        with run_in_progress(idle, HANG) as hung:
            idle.install("m", {"1.0.0": ONE, "2.0.0": TWO})
            assert idle.ask("POST", LOAD)[0] == 200
        assert hung[0][0] == 500
        assert (served(idle), state(idle)["current"]) == ("2.0.0", "2.0.0")
        assert events(idle, "fallback", "failing") == []


def test_a_model_that_was_unloaded_is_not_brought_back(idle: Device) -> None:
    idle.install("m", {"1.0.0": ONE, "2.0.0": TWO})
    with idle.serving("--failures", "1", "--run-ms", "1500"):
        with run_in_progress(idle, HANG):
            assert idle.ask("POST", "/v2/repository/models/m/unload")[0] == 200
        assert idle.ask("POST", INFER, X)[0] == 503
        assert index(idle)["reason"] == "unloaded"


def test_a_fallback_under_traffic_mixes_no_answer_and_ends_in_the_version_before(
    idle: Device,
) -> None:
    idle.install("m", {"1.0.0": ONE, "2.0.0": TWO})
    answers: list[tuple[int, Any]] = []
    stop = threading.Event()

    def work() -> None:
        connection = idle.connect()
        while not stop.is_set():
            answers.append(connection.ask("POST", INFER, X))
        connection.close()

    with idle.serving("--failures", "1"):
        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(answers) > 50)
        fail(idle)
        wait_until(lambda: answers[-1][0] == 200 and answers[-1][1]["model_version"] == "1.0.0")
        stop.set()
        for thread in threads:
            thread.join()
    models = {"1.0.0": ONE, "2.0.0": TWO}
    for status, answer in answers:
        assert status == 200, answer  # a worker that died once is started again at once
        model = models[answer["model_version"]]
        assert values(answer)["y"] == [1 + model.weight] * 4
        assert values(answer)["calls"][1] == model.tag


def test_a_failing_model_leaves_the_others_alone(idle: Device) -> None:
    idle.install("m", {"1.0.0": ONE, "2.0.0": TWO})
    idle.install("n", {"1.0.0": ONE, "2.0.0": TWO})
    with idle.serving("--failures", "1"):
        workers = set(idle.workers())
        fail(idle)
        wait_until(lambda: len(set(idle.workers()) - workers) == 1)
        status, answer = idle.ask("POST", "/v2/models/n/infer", X)
        assert (status, answer["model_version"], values(answer)["calls"][0]) == (200, "2.0.0", 1)


def test_no_file_is_left_of_a_fallback(idle: Device) -> None:
    idle.install("m", {"1.0.0": ONE, "2.0.0": TWO})
    with idle.serving("--failures", "1"):
        fail(idle)
        wait_until(lambda: events(idle, "fallback") != [])
        assert idle.server is not None
        held = Path(f"/proc/{idle.server.pid}/fd")
        wait_until(
            lambda: str(idle.root / "lock") not in map(str, map(Path.resolve, held.iterdir()))
        )
        assert [path.name for path in (idle.root / "models" / "m").iterdir()] == ["state.json"]
        assert not list(idle.root.glob("*.tmp"))

"""Requests that wait for their turn at a model, how long, and how many; and the settings that say so."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.native.fake_device import (
    Device,
    FakeModel,
    request,
    run_in_progress,
    values,
    wait_until,
)

pytestmark = pytest.mark.also_on("aarch64")

INFER = "/v2/models/m/infer"
OTHER = "/v2/models/n/infer"
HANG, NAP = -1003, -1004  # orders of data/fake_model.c
X = request([1, 1, 1, 1])


def figures(device: Device) -> dict[str, int]:
    """What /metrics tells of the queue of m 1.0.0."""
    connection = device.connect()
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    found = re.findall(r'edgepack_queue_(\w+)\{model="m",version="1.0.0"(.*)\} (\d+)\n', text)
    return {name + more: int(value) for name, more, value in found}


def waiting(device: Device) -> int:
    return figures(device)["length"]


Asked = list[tuple[int, Any]]


@contextmanager
def requests_waiting(device: Device, count: int) -> Iterator[list[Asked]]:
    """That many requests, each of which came to wait before the next; their answers afterwards."""
    before = waiting(device)
    answers: list[Asked] = [[] for _ in range(count)]
    threads = []
    for number, place in enumerate(answers):
        thread = threading.Thread(
            target=lambda into: into.append(device.ask("POST", INFER, X)), args=(place,)
        )
        thread.start()
        threads.append(thread)
        wait_until(lambda many=before + number + 1: waiting(device) == many)  # type: ignore[misc]
    yield answers
    for thread in threads:
        thread.join(30)


def kill_worker(device: Device) -> None:
    os.kill(device.workers()[0], signal.SIGKILL)


def test_requests_are_answered_in_the_order_in_which_they_came(idle: Device) -> None:
    with idle.serving():
        with run_in_progress(idle, NAP), requests_waiting(idle, 3) as answers:
            pass
        assert [values(answer)["calls"][0] for ((_, answer),) in answers] == [2, 3, 4]
        assert waiting(idle) == 0


def test_a_request_above_the_bound_is_turned_away_at_once_and_those_before_it_are_answered(
    idle: Device,
) -> None:
    with idle.serving("--queue", "2"):
        with run_in_progress(idle, HANG) as hung, requests_waiting(idle, 2) as answers:
            connection = idle.connect()
            connection.request("POST", INFER, json.dumps(X))
            answer = connection.getresponse()
            assert (answer.status, answer.getheader("Retry-After")) == (503, "1")
            assert json.loads(answer.read()) == {"error": "2 requests for this model wait already"}
            assert connection.ask("GET", "/v2/health/ready")[0] == 200  # it may go on
            connection.close()
            kill_worker(idle)
        assert hung[0][0] == 500
        assert [status for ((status, _),) in answers] == [200, 200]
        assert figures(idle)['rejected_total,reason="full"'] == 1


def test_without_a_queue_a_busy_model_turns_everybody_away(idle: Device) -> None:
    with idle.serving("--queue", "0"), run_in_progress(idle, NAP) as answers:
        assert idle.ask("POST", INFER, X)[0] == 503
    assert answers[0][0] == 200


def test_a_request_that_waits_too_long_is_turned_away(idle: Device) -> None:
    with idle.serving("--queue-ms", "100"):
        with run_in_progress(idle, HANG):
            status, answer = idle.ask("POST", INFER, X)
            assert (status, answer) == (503, {"error": "the model was busy for 100 ms"})
            kill_worker(idle)
        told = figures(idle)
        assert (told['rejected_total,reason="late"'], told["length"]) == (1, 0)
        assert idle.ask("POST", INFER, X)[0] == 200


def test_a_run_that_takes_too_long_is_ended_and_whoever_waited_is_answered(idle: Device) -> None:
    with idle.serving("--run-ms", "400"):
        with run_in_progress(idle, HANG) as hung:
            assert idle.ask("POST", INFER, X)[0] == 200
        status, answer = hung[0]
        assert status == 500
        assert answer == {"error": "the worker did not answer within 400 ms and was killed"}


def test_a_model_that_hangs_keeps_requests_of_other_models_from_nothing(idle: Device) -> None:
    with idle.serving():
        with run_in_progress(idle, HANG):
            idle.install("n", {"1.0.0": FakeModel(tag=2)})
            assert idle.ask("POST", "/v2/repository/models/n/load")[0] == 200
            with requests_waiting(idle, 16):
                assert idle.ask("POST", INFER, X)[0] == 503
                held = [
                    idle.connect() for _ in range(14)
                ]  # 32 in all, with the one of the hung run
                for connection in held:
                    assert connection.ask("POST", OTHER, X)[0] == 200
                    assert connection.ask("POST", INFER, X)[0] == 503
                for connection in held:
                    connection.close()
                kill_worker(idle)
        assert idle.ask("POST", INFER, X)[0] == 200


def test_requests_that_waited_when_the_version_was_switched_are_answered_by_the_one_they_came_for(
    idle: Device,
) -> None:
    with idle.serving():
        with run_in_progress(idle, HANG), requests_waiting(idle, 3) as answers:
            (old,) = idle.workers()
            idle.install("m", {"1.0.0": FakeModel(), "2.0.0": FakeModel(tag=2, weight=2)})
            assert idle.ask("POST", "/v2/repository/models/m/load")[0] == 200
            status, answer = idle.ask("POST", INFER, X)
            assert (status, answer["model_version"]) == (200, "2.0.0")
            assert values(answer)["y"] == [3, 3, 3, 3]
            os.kill(old, signal.SIGKILL)
        for ((status, answer),) in answers:
            assert (status, answer["model_version"], values(answer)["y"]) == (200, "1.0.0", [2] * 4)
        wait_until(lambda: len(idle.workers()) == 1)


def test_a_signal_to_stop_lets_those_who_wait_have_their_answers(idle: Device) -> None:
    with idle.serving():
        assert idle.server is not None
        with run_in_progress(idle, NAP) as first, requests_waiting(idle, 3) as answers:
            idle.server.send_signal(signal.SIGTERM)
        assert [status for ((status, _),) in [first, *answers]] == [200] * 4
        assert idle.server.wait(20) == 0


# ---- settings ------------------------------------------------------------------------------------


def test_the_file_sets_and_the_command_line_comes_before_it(idle: Device) -> None:
    (idle.root / "serve.json").write_text('{"run_ms": 100, "queue": 0}')
    with idle.serving("--run-ms", "1500"):
        with run_in_progress(idle, HANG) as hung:
            assert idle.ask("POST", INFER, X)[0] == 503
        assert (hung[0][0], "within 1500 ms" in hung[0][1]["error"]) == (500, True)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"queue":2000}', "serve.json: queue is not a number within 0 to 1024"),
        ('{"queue":null}', "serve.json: queue is not a number within 0 to 1024"),
        ('{"run_ms":0}', "serve.json: run_ms is not a number within 1 to 3600000"),
        ('{"turns":1}', "serve.json: no setting is called turns; there are queue, queue_ms"),
        ('{"queue":1', "serve.json: not well-formed JSON"),
        ("", "serve.json: not well-formed JSON"),
        (None, "cannot read serve.json: "),
    ],
)
@pytest.mark.parametrize("options", [(), ("--detach",)])
def test_a_wrong_settings_file_ends_the_server_with_one_line(
    idle: Device, text: str | None, reason: str, options: tuple[str, ...]
) -> None:
    place = idle.root / "serve.json"
    place.mkdir() if text is None else place.write_text(text)
    done = subprocess.run(
        idle.command("serve", *options), capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 10
    assert done.stderr.startswith(f"edgepack-agent: state: {reason}")
    assert done.stderr.count("\n") == 1
    assert not idle.socket.exists()


def test_a_wrong_option_is_told_with_its_range(idle: Device) -> None:
    for words in (("--queue", "1025"), ("--queue-ms", "0"), ("--run-ms", "x"), ("--failures", "")):
        done = subprocess.run(
            idle.command("serve", *words), capture_output=True, text=True, check=False, timeout=30
        )
        assert done.returncode == 2
        assert f"{words[0]} takes a number within " in done.stderr

"""Pushing captures: in order, each at least once, whatever the server, the network and the agent do."""

from __future__ import annotations

import http.server
import json
import os
import re
import signal
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgepack import captures
from edgepack.channels.device_status import DeviceStatus
from tests.capture_samples import raw, segment
from tests.integration.machines.ports import free_ports
from tests.native.collector import Collector, Request
from tests.native.fake_device import (
    Device,
    FakeModel,
    request,
    wait_until,
)
from tests.native.test_metrics import scrape

M_DONE = {"name": "m", "pushed": 1, "last": 1}


pytestmark = pytest.mark.also_on("aarch64")


@pytest.fixture
def device(blank: Device) -> Device:
    return blank


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector().listening() as found:
        yield found


def capture(device: Device, *numbers: int, model: str = "m", size: int = 3) -> Path:
    return segment(device.root / "captures" / model, numbers, model=model, size=size)


def configure(device: Device, collector: Collector | str, **more: Any) -> None:
    url = collector if isinstance(collector, str) else collector.url
    path = device.root / "push.json"
    path.with_suffix(".tmp").write_text(json.dumps({"url": url, "interval_s": 1} | more))
    path.with_suffix(".tmp").replace(path)


def push(device: Device) -> subprocess.CompletedProcess[str]:
    command = device.command("capture", "push")
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def pushed(device: Device) -> int:
    """How many records one push by hand brings."""
    done = push(device)
    assert done.returncode == 0, done.stderr
    return int(json.loads(done.stdout)["records"])


def position(device: Device, model: str = "m") -> int:
    return int((device.root / "captures" / model / "pushed").read_text())


def status(device: Device) -> Any:
    code, answer = device.ask("GET", "/v2/status")
    assert code == 200
    assert DeviceStatus.from_dict(answer).to_dict()["push"] == answer["push"]
    return answer["push"]


def failures(device: Device) -> int:
    """In a row; none before the agent has looked at push.json."""
    return int((status(device) or {}).get("failures", 0))


# ---- by hand -------------------------------------------------------------------------------------


def test_all_captures_come_in_order_and_once(device: Device, collector: Collector) -> None:
    capture(device, 1, 2, 3)
    capture(device, 1025, 1026)
    capture(device, 7, model="n")
    configure(device, collector)
    assert pushed(device) == 6
    id = (device.root / "captures/.device").read_text()
    assert [r.path for r in collector.requests] == [
        f"/in/{id}/m/000000000001-000000000003.epc",
        f"/in/{id}/m/000000001025-000000001026.epc",
        f"/in/{id}/n/000000000007-000000000007.epc",
    ]
    assert collector.requests[0].body == b"".join(map(raw, (1, 2, 3)))
    assert pushed(device) == 0
    capture(device, 2049)
    assert pushed(device) == 1
    assert collector.numbers() == [1, 2, 3, 1025, 1026, 2049]
    assert position(device) == 2049


def test_a_request_is_what_push_json_says(device: Device, collector: Collector) -> None:
    capture(device, 1)
    headers = {"X-Device": "camera 1", "Authorization": "Bearer of-loopback"}
    configure(device, f"{collector.url}/prefix/", method="PUT", headers=headers)
    assert pushed(device) == 1
    (came,) = collector.requests
    assert came.method == "PUT"
    assert came.path.startswith("/in/prefix/")
    assert came.headers["content-type"] == "application/vnd.edgepack.captures"
    assert came.headers["x-device"] == "camera 1"
    assert came.headers["authorization"] == "Bearer of-loopback"
    assert came.headers["host"] == f"127.0.0.1:{collector.port}"


def test_batches_are_no_larger_than_asked_but_hold_a_record(
    device: Device, collector: Collector
) -> None:
    capture(device, *range(1, 11), size=30)
    capture(device, 1025, size=3000)
    size = len(raw(1, size=30))
    configure(device, collector, batch_bytes=3 * size)
    assert pushed(device) == 11
    assert [len(r.numbers) for r in collector.requests] == [3, 3, 3, 1, 1]
    assert collector.numbers() == [*range(1, 11), 1025]


def test_a_position_that_is_none_pushes_all_again(device: Device, collector: Collector) -> None:
    capture(device, 1, 2)
    configure(device, collector)
    for damage in (b"", b"\0" * 20, b"-5", b"9" * 40):
        (device.root / "captures/m/pushed").write_bytes(damage)
        assert pushed(device) == 2
        assert position(device) == 2


def test_more_batches_than_a_turn_has_come_in_one_push(
    device: Device, collector: Collector
) -> None:
    for number in range(1, 150):
        capture(device, number)
    configure(device, collector)
    assert pushed(device) == 149
    assert collector.numbers() == list(range(1, 150))


def test_damaged_captures_are_left_out_and_those_behind_them_come(
    device: Device, collector: Collector
) -> None:
    path = capture(device, 1, 2, 3, 4)
    data = bytearray(path.read_bytes())
    data[len(raw(1)) + 100] ^= 1
    path.write_bytes(data[:-1])
    configure(device, collector)
    assert pushed(device) == 2
    assert collector.numbers() == [1, 3]


def test_without_push_json_or_captures_nothing_is_pushed(
    device: Device, collector: Collector
) -> None:
    done = push(device)
    assert done.returncode == 10
    assert "there is no" in json.loads(done.stdout)["reason"]
    configure(device, collector)
    assert pushed(device) == 0
    (device.root / "captures/m").mkdir(parents=True)
    assert pushed(device) == 0
    assert not (device.root / "captures/m/pushed").exists()


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ("{", "not well-formed JSON"),
        ('{"url":"https://h/"}', "no TLS"),
        ('{"url":"http://h/?signature=x"}', "plain prefix"),
        ('{"url":"http://example.org/","headers":{"Authorization":"x"}}', "readable on the way"),
        ('{"url":"http://h/","speed":9}', "unknown field speed"),
    ],
)
def test_a_push_json_that_is_wrong_says_what_is(device: Device, config: str, reason: str) -> None:
    (device.root / "push.json").write_text(config)
    done = push(device)
    assert done.returncode == 10
    assert reason in json.loads(done.stdout)["reason"]
    assert done.stderr.count("\n") == 1


def test_nobody_at_the_other_side_is_a_channel_that_failed(device: Device) -> None:
    capture(device, 1)
    (port,) = free_ports(1)
    configure(device, f"http://127.0.0.1:{port}")
    done = push(device)
    assert done.returncode == 9
    assert "cannot connect to 127.0.0.1" in json.loads(done.stdout)["reason"]


@pytest.mark.parametrize("code", [199, 301, 307, 400, 403, 404, 413, 500, 503])
def test_an_answer_that_is_no_2xx_moves_nothing(
    device: Device, collector: Collector, code: int
) -> None:
    capture(device, 1, 2)
    configure(device, collector)
    collector.answer = lambda request: code
    done = push(device)
    assert done.returncode == 9
    words = "does not answer" if code == 199 else f"answers {code}"
    assert words in json.loads(done.stdout)["reason"]
    collector.answer = lambda request: 200
    assert pushed(device) == 2


def test_an_answer_before_the_request_is_through_is_heard(
    device: Device, collector: Collector
) -> None:
    capture(device, 1, size=4_000_000)
    configure(device, collector)
    collector.early = 413
    done = push(device)
    assert done.returncode == 9
    reason = json.loads(done.stdout)["reason"]
    assert "answers 413" in reason or "takes no more" in reason  # a reset may overtake the answer


# ---- by the server -------------------------------------------------------------------------------


def test_a_server_that_was_away_gets_all_in_order_when_it_is_back(device: Device) -> None:
    (port,) = free_ports(1)
    collector = Collector(port=port)
    capture(device, 1, 2, 3)
    configure(device, collector)
    with device.serving():
        wait_until(lambda: failures(device) >= 2)
        assert "cannot connect" in status(device)["last_failure"]
        capture(device, 1025)
        with collector.listening():
            wait_until(lambda: collector.numbers() == [1, 2, 3, 1025])
            capture(device, 2049, 2050)
            wait_until(lambda: collector.numbers() == [1, 2, 3, 1025, 2049, 2050])
        capture(device, 3073)
        wait_until(lambda: failures(device) >= 1)
        with collector.listening():
            wait_until(lambda: collector.numbers()[-1] == 3073)
        wait_until(lambda: failures(device) == 0)
        assert status(device)["models"] == [{"name": "m", "pushed": 3073, "last": 3073}]
        found = scrape(device)
    m = (("model", "m"),)
    assert found["edgepack_capture_pushed_total", m] == 7
    assert found["edgepack_capture_push_lag", m] == 0
    assert found["edgepack_capture_push_failures_total", ()] >= 3
    assert (device.root / "stderr").read_text().count("cannot connect") == 2, "told once each time"


def test_what_the_limits_dropped_meanwhile_is_told_and_the_rest_comes(device: Device) -> None:
    (port,) = free_ports(1)
    collector = Collector(port=port)
    first = capture(device, 1, 2)
    capture(device, 1025)
    configure(device, collector)
    with device.serving():
        wait_until(lambda: failures(device) >= 1)
        first.unlink()
        with collector.listening():
            wait_until(lambda: collector.numbers() == [1025])
    assert (
        "captures 1 to 1024 of m went before they were pushed"
        in (device.root / "stderr").read_text()
    )


def test_a_batch_that_came_but_was_not_confirmed_comes_again(
    device: Device, collector: Collector
) -> None:
    dropped = threading.Event()

    def drop_the_first(request: Request) -> int | None:
        if dropped.is_set():
            return 204
        dropped.set()
        return None

    collector.answer = drop_the_first
    capture(device, 1, 2)
    capture(device, 1025)
    configure(device, collector)
    with device.serving():
        wait_until(lambda: collector.numbers() == [1, 2, 1, 2, 1025])
    assert collector.requests[0].body == collector.requests[1].body


@pytest.mark.parametrize("confirmed", [False, True])
def test_an_agent_killed_between_request_and_answer_loses_nothing(
    device: Device, collector: Collector, confirmed: bool
) -> None:
    killed = threading.Event()

    def kill_at_the_second(request: Request) -> int | None:
        if request.numbers == [1025] and not killed.is_set():
            assert device.server is not None
            os.kill(device.server.pid, signal.SIGKILL)
            device.server.wait()
            killed.set()
            return 204 if confirmed else None
        return 204

    collector.answer = kill_at_the_second
    for number in (1, 1025, 2049):
        capture(device, number)
    configure(device, collector)
    with device.serving():
        wait_until(killed.is_set)
    assert position(device) == 1
    with device.serving():
        wait_until(lambda: collector.numbers() == [1, 1025, 1025, 2049])


@pytest.mark.parametrize("code", [400, 403])
def test_an_answer_that_waiting_does_not_cure_is_told_and_a_new_push_json_goes_at_once(
    device: Device, collector: Collector, code: int
) -> None:
    collector.answer = lambda request: code
    capture(device, 1)
    configure(device, collector)
    with device.serving():
        wait_until(lambda: failures(device) == 1)
        assert f"answers {code}" in status(device)["last_failure"]
        collector.answer = lambda request: 204
        configure(device, collector, headers={"X-Fixed": "1"})
        wait_until(lambda: len(collector.requests) == 2)
        wait_until(lambda: failures(device) == 0)
    assert (
        f"captures are not pushed: {collector.url} answers {code}"
        in (device.root / "stderr").read_text()
    )


def test_an_answer_that_waiting_cures_is_tried_again(device: Device, collector: Collector) -> None:
    codes = iter([503, 429, 408, 500])
    collector.answer = lambda request: next(codes, 204)
    capture(device, 1)
    configure(device, collector)
    with device.serving():
        wait_until(lambda: (status(device) or {}).get("models") == [M_DONE], seconds=40)
    assert len(collector.requests) == 5
    assert position(device) == 1


def test_a_push_json_that_comes_and_goes_is_followed(device: Device, collector: Collector) -> None:
    capture(device, 1)
    with device.serving():
        assert status(device) is None
        assert ("edgepack_capture_push_failures_total", ()) not in scrape(device)
        configure(device, collector)
        wait_until(lambda: collector.numbers() == [1])
        configure(device, "https://example.org/")
        wait_until(lambda: "no TLS" in str(status(device)))
        (device.root / "push.json").unlink()
        wait_until(lambda: status(device) is None)
        capture(device, 1025)
        configure(device, collector)
        wait_until(lambda: collector.numbers() == [1, 1025])


def test_requests_are_answered_and_captured_while_a_server_hangs(idle: Device) -> None:
    stuck = threading.Event()

    def hang(request: Request) -> int | None:
        stuck.wait(60)
        return 204

    with Collector(answer=hang).listening() as collector:
        assert set_rules(idle, '{"always":true}').returncode == 0
        configure(idle, collector, batch_bytes=1024)
        with idle.serving():
            for _ in range(5):
                assert idle.ask("POST", "/v2/models/m/infer", request([1, 2, 3, 4]))[0] == 200
            # The agent ends while the request hangs.
        stuck.set()
        collector.answer = lambda request: 204
        wait_until(lambda: pushed(idle) == 0)
    assert sorted(set(collector.numbers())) == captured(idle)
    assert len(captured(idle)) == 5


def test_what_a_served_model_captures_is_pushed(idle: Device, collector: Collector) -> None:
    assert set_rules(idle, '{"always":true}').returncode == 0
    idle.install("n", {"1.0.0": FakeModel()})
    configure(idle, collector)
    with idle.serving():
        for count in range(1, 4):
            assert idle.ask("POST", "/v2/models/m/infer", request([count, 2, 3, 4]))[0] == 200
        wait_until(lambda: len(collector.numbers()) == 3)
    assert collector.numbers() == captured(idle)


def set_rules(device: Device, rules: str) -> subprocess.CompletedProcess[str]:
    command = device.command("capture", "set", "m", rules)
    return subprocess.run(command, capture_output=True, text=True, check=False)


def captured(device: Device) -> list[int]:
    return [record.number for record in captures.read(device.root / "captures" / "m")]


def test_the_receiver_of_the_documentation_takes_what_is_read_back(
    device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[2] / "docs/capture.md").read_text()
    (code,) = re.findall(
        r"^```python\n([^`]*?class Receiver.*?)^```", page, re.MULTILINE | re.DOTALL
    )
    names: dict[str, Any] = {}
    exec(code, names)  # its own page's
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(names["Receiver"], "log_message", lambda *args: None)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), names["Receiver"]) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        capture(device, 1, 2)
        capture(device, 1025)
        configure(device, f"http://127.0.0.1:{server.server_port}", batch_bytes=1024)
        assert pushed(device) == 3
        (device.root / "captures/m/pushed").unlink()
        configure(device, f"http://127.0.0.1:{server.server_port}")
        assert pushed(device) == 3
        with pytest.raises(urllib.error.HTTPError, match="400"):
            urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/../../x", data=b"x")
        server.shutdown()
        thread.join()
    assert [record.number for record in captures.read(tmp_path)] == [1, 2, 1025]
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {".epc"}

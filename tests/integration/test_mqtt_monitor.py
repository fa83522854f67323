"""The mqtt-monitor template as its README installs it: a real broker with mutual TLS, the real agent.

The model is the FAKE one of tests/native: y = x + 1, and the rule looks at y[1].
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import edgepack
from edgepack.targets import detect_host
from edgepack.toolchain import build_agent
from tests.integration.mosquitto import Authority, Control, Mosquitto
from tests.native.fake_device import Device, FakeModel, wait_until

PACKAGE = Path(edgepack.__file__).parent
SLOW, DEADLY = -1004.0, -1002.0  # as x[0]: 300 ms a run; the worker's death

pytestmark = pytest.mark.needs("mosquitto", "openssl")


@pytest.fixture
def device() -> Iterator[Device]:
    # Not tmp_path: a Unix socket's path has 107 bytes at most.
    root = Path(tempfile.mkdtemp(prefix="edgepack-"))
    (root / "run").mkdir()
    device = Device(root=root, agent=build_agent(detect_host()))
    device.install("m", {"1.0.0": FakeModel()})
    yield device
    shutil.rmtree(root)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    broker = Mosquitto.create(tmp_path / "broker")
    broker.start()
    yield broker
    broker.kill()


@pytest.fixture
def control(broker: Mosquitto) -> Iterator[Control]:
    control = Control(broker)
    control.start()
    yield control
    control.stop()


class Monitor:
    """The program, installed in a folder of its own."""

    def __init__(self, place: Path, broker: Mosquitto, device: Device) -> None:
        shutil.copytree(
            PACKAGE / "templates" / "mqtt-monitor" / "mqtt_monitor", place / "mqtt_monitor"
        )
        shutil.copy(PACKAGE / "clients" / "python" / "edgepack_client.py", place)
        self.place = place
        self.store = place / "results.sqlite"
        self.process: subprocess.Popen[bytes] | None = None
        self.config: dict[str, Any] = {
            "broker": {
                "host": "127.0.0.1",
                "port": broker.port,
                "client_id": "gw-1",
                "ca": str(broker.place / "ca.crt"),
                "certificate": str(broker.place / "gw-1.crt"),
                "key": str(broker.place / "gw-1.key"),
                "reconnect_seconds": 0.05,
                "reconnect_seconds_most": 0.1,
            },
            "topics": {"windows": "plant/gw-1/windows/#"}
            | {kind: f"plant/gw-1/out/{kind}" for kind in ("results", "actions", "status")},
            "model": {"name": "m", "input": "x", "socket": str(device.socket)},
            "rule": [
                {
                    "name": "bearing",
                    "output": "y",
                    "index": 1,
                    "raise_at": 8.0,
                    "clear_at": 4.0,
                    "raise_windows": 3,
                    "raise_seconds": 2.0,
                    "clear_windows": 2,
                    "action": "slow down",
                }
            ],
            "store": {"path": str(self.store)},
            "report": {"seconds": 0.01},
        }

    def start(self) -> None:
        (self.place / "monitor.json").write_text(json.dumps(self.config))
        with (self.place / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mqtt_monitor", "monitor.json"], cwd=self.place, stderr=log
            )

    def log(self) -> str:
        return (self.place / "log").read_text()

    def wait_subscribed(self) -> None:
        self.wait_for_log("subscribed to plant/")

    def wait_for_log(self, words: str) -> None:
        wait_until(lambda: words in self.log() or self.has_ended())
        assert not self.has_ended(), self.log()

    def has_ended(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self) -> None:
        self.send(signal.SIGTERM)
        assert self.process is not None
        assert self.process.wait(20) == 0, self.log()

    def kept(self) -> list[float]:
        """The times of the results in the store, in its order."""
        with sqlite3.connect(f"file:{self.store}?mode=ro", uri=True) as database:
            rows = database.execute(
                "SELECT body FROM outbox WHERE topic LIKE '%results' ORDER BY id"
            )
            found = [json.loads(body)["time"] for (body,) in rows]
        database.close()
        return found


@pytest.fixture
def monitor(tmp_path: Path, broker: Mosquitto, device: Device) -> Iterator[Monitor]:
    place = tmp_path / "monitor"
    place.mkdir()
    monitor = Monitor(place, broker, device)
    yield monitor
    if not monitor.has_ended():
        monitor.send(signal.SIGKILL)
        assert monitor.process is not None
        monitor.process.wait()


def window(time: float, value: float, first: float = 0.0) -> dict[str, Any]:
    return {"time": time, "values": [[first, value], [0.0, 0.0]]}


def times(control: Control) -> list[float]:
    return [result["time"] for result in control.of("results")]


def test_an_anomaly_triggers_exactly_one_action_and_its_end_another(
    device: Device, control: Control, monitor: Monitor
) -> None:
    values = [1, 9, 9, 1, 1, 9, 9, 9, 5, 9, 9, 1, 5, 1, 5, 1, 1, 1, 5]
    with device.serving():
        monitor.start()
        monitor.wait_subscribed()
        for time, value in enumerate(values):
            control.send(window(float(time), float(value)))
        control.wait_for(lambda c: len(c.of("results")) == len(values))
        control.wait_for(lambda c: len(c.of("actions")) == 2)
        wait_until(lambda: monitor.kept() == [])
        monitor.stop()
    alarm, normal = control.of("actions")
    assert (alarm["time"], alarm["rule"], alarm["state"]) == (7.0, "bearing", "alarm")
    assert (alarm["score"], alarm["action"]) == (10.0, "slow down")
    assert alarm["source"] == "plant/gw-1/windows/a"
    assert (normal["time"], normal["state"]) == (16.0, "normal")
    results = control.of("results")
    assert [result["scores"]["bearing"] for result in results] == [value + 1 for value in values]
    assert [bool(result["alarms"]) for result in results] == [7 <= n < 16 for n in range(19)]


def test_bad_messages_are_counted_and_told_and_end_nothing(
    device: Device, control: Control, monitor: Monitor
) -> None:
    with device.serving():
        monitor.start()
        monitor.wait_subscribed()
        for payload in (b"\xff", b"{}", b'{"values": [1, 2]}', b'{"values": [[1, "2"], [3, 4]]}'):
            control.send(payload)
        control.send(window(1.0, 1.0, first=DEADLY))
        control.send(window(2.0, 1.0))
        control.wait_for(lambda c: times(c) == [2.0])
        control.wait_for(lambda c: any(status["windows"] for status in c.of("status")))
        monitor.stop()
    status = control.of("status")[-1]
    assert (status["bad"], status["windows"]) == (5, 1)
    assert "the model does not take it" in status["last_bad"]
    assert monitor.log().count("bad message on plant/gw-1/windows/a: ") == 5
    assert "2 values, not 4" in monitor.log()


def test_results_wait_while_the_broker_is_dead_and_arrive_in_order(
    device: Device, broker: Mosquitto, control: Control, monitor: Monitor
) -> None:
    sent = [float(time) for time in range(8)]
    with device.serving():
        monitor.start()
        monitor.wait_subscribed()
        for time in sent:
            control.send(window(time, 1.0, first=SLOW))
        wait_until(lambda: broker.log().count("Sending PUBLISH to gw-1") == len(sent))
        control.wait_for(lambda c: len(times(c)) >= 1)
        broker.kill()
        wait_until(lambda: len(monitor.kept()) > 0 and monitor.kept()[-1] == sent[-1])
        kept = monitor.kept()
        assert len(kept) >= 4
        # Held while the plant's side subscribes anew: this broker has forgotten it.
        monitor.send(signal.SIGSTOP)
        broker.start()
        control.wait_subscribed()
        before = len(control.received)
        monitor.send(signal.SIGCONT)
        control.wait_for(lambda c: sent[-1] in times(c))
        wait_until(lambda: monitor.kept() == [])
        after = [body["time"] for topic, body in control.received[before:] if "results" in topic]
        assert after == kept
        ids = [body["id"] for _, body in control.received[before:]]
        assert ids == sorted(set(ids))
        monitor.stop()
    assert list(dict.fromkeys(times(control))) == sent


def test_kill_9_loses_no_window_and_judges_none_twice(
    device: Device, control: Control, monitor: Monitor
) -> None:
    sent = [float(time) for time in range(6)]
    with device.serving():
        monitor.start()
        monitor.wait_subscribed()
        for time in sent:
            control.send(window(time, 9.0, first=SLOW))
        control.wait_for(lambda c: len(times(c)) >= 2)
        monitor.send(signal.SIGKILL)
        assert monitor.process is not None
        monitor.process.wait()
        monitor.start()
        control.wait_for(lambda c: set(times(c)) == set(sent))
        wait_until(lambda: monitor.kept() == [])
        monitor.stop()
    assert len({result["id"] for result in control.of("results")}) == len(sent)
    assert len({action["id"] for action in control.of("actions")}) == 1


def test_windows_wait_for_an_agent_that_is_away(
    device: Device, control: Control, monitor: Monitor
) -> None:
    monitor.start()
    monitor.wait_subscribed()
    for time in (1.0, 2.0):
        control.send(window(time, 1.0))
    monitor.wait_for_log("windows wait: cannot connect to ")
    with device.serving():
        control.wait_for(lambda c: times(c) == [1.0, 2.0])
        monitor.stop()
    assert monitor.log().count("windows wait") == 1


def test_a_foreign_certificate_is_refused_and_told(
    tmp_path: Path, broker: Mosquitto, control: Control, monitor: Monitor
) -> None:
    foreign = Authority(tmp_path / "foreign")
    foreign.issue("gw-1", usage="clientAuth")
    files = {"certificate": str(foreign.place / "gw-1.crt"), "key": str(foreign.place / "gw-1.key")}
    monitor.config["broker"] |= files
    monitor.start()
    monitor.wait_for_log("does it trust our certificate?")
    wait_until(lambda: "unknown ca" in broker.log() or "verify failed" in broker.log())
    assert "connected to" not in monitor.log()
    assert control.received == []
    monitor.stop()


def test_a_foreign_broker_is_refused_and_told(
    tmp_path: Path, broker: Mosquitto, monitor: Monitor
) -> None:
    monitor.config["broker"]["ca"] = str(Authority(tmp_path / "foreign").place / "ca.crt")
    monitor.start()
    monitor.wait_for_log("certificate verify failed")
    assert "connected to" not in monitor.log()
    monitor.stop()


def test_the_acl_binds_a_device_to_its_own_topics(
    device: Device, broker: Mosquitto, control: Control, monitor: Monitor
) -> None:
    monitor.config["topics"]["windows"] = "plant/#"
    monitor.config["topics"]["results"] = "plant/gw-2/out/results"
    with device.serving():
        monitor.start()
        monitor.wait_subscribed()
        control.send(window(1.0, 1.0), "plant/gw-2/windows/a")
        control.send(window(2.0, 1.0))
        control.wait_for(lambda c: any(status["windows"] for status in c.of("status")))
        monitor.stop()
    assert control.of("results") == []
    assert "Denied PUBLISH from gw-1" in broker.log()
    assert control.of("status")[-1]["windows"] == 1


@pytest.mark.needs("systemd-analyze")
def test_systemd_understands_the_unit() -> None:
    unit = PACKAGE / "templates" / "mqtt-monitor" / "edgepack-mqtt-monitor.service"
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"SYSTEMD_LOG_LEVEL": "warning"},
    )
    complaints = [line for line in done.stderr.splitlines() if unit.name in line]
    assert [line for line in complaints if "not executable" not in line] == []

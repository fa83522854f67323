"""What befell a device's models, as the agent keeps it in ROOT/events.jsonl."""

from __future__ import annotations

import json
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from edgepack.trust import PrivateKey
from tests.native import fake_device
from tests.native.device_store import Device

FIELDS = {"sequence", "time", "boot", "boot_ms", "event", "model", "version", "reason"}


pytestmark = pytest.mark.also_on("aarch64")


def told(device: Device) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = device.installed("events")["events"]
    return events


def test_installations_refusals_and_rollbacks_are_told_in_order(
    tmp_path: Path, device: Device, key: PrivateKey
) -> None:
    assert told(device) == []
    for version in ("1.0.0", "2.0.0"):
        path = device.write(tmp_path / f"{version}.epk", key, version=version).path
        device.installed("install", path)
    bad = device.write(tmp_path / "3.epk", key, version="3.0.0", weights="wrong").path
    refusals = [device.run("install", bad) for _ in range(3)]
    device.installed("rollback")
    events = told(device)
    assert [(event["event"], event["model"], event["version"]) for event in events] == [
        ("install", "demo", "1.0.0"),
        ("install", "demo", "2.0.0"),
        ("refused", "demo", "3.0.0"),  # once: it was tried again and again, and nothing was new
        ("rollback", "demo", "1.0.0"),
    ]
    assert [event["reason"] for event in events] == [None, None, refusals[0].json["reason"], None]
    assert [event["sequence"] for event in events] == [1, 2, 3, 4]
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    for event in events:
        assert (set(event), event["boot"], event["boot_ms"] > 0) == (FIELDS, boot, True)
    lines = (device.root / "events.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == events
    assert not list(device.root.glob("*.tmp"))


def test_server_and_command_tell_the_same_and_a_start_is_told_once_for_each_boot(
    idle: fake_device.Device,
) -> None:
    for _ in range(3):
        with idle.serving():
            code, served = idle.ask("GET", "/v2/events")
            done = subprocess.run(
                idle.command("events"), capture_output=True, text=True, check=True
            )
            assert (code, served) == (200, json.loads(done.stdout))
            assert idle.ask("POST", "/v2/events", {})[0] == 405
    (start,) = served["events"]
    assert (start["event"], start["model"], start["version"]) == ("start", None, "0.1.0")
    lines = idle.root / "events.jsonl"
    lines.write_text(lines.read_text().replace(start["boot"], start["boot"][::-1]))
    with idle.serving():
        events = idle.ask("GET", "/v2/events")[1]["events"]
    assert [event["event"] for event in events] == ["start", "start"]


def test_a_version_that_does_not_start_is_told_at_the_start_of_the_server(
    idle: fake_device.Device,
) -> None:
    idle.install("m", {"1.0.0": fake_device.FakeModel(), "2.0.0": fake_device.FakeModel(tag=2)})
    blob = idle.current("m", "worker")
    blob.chmod(0o755)
    blob.write_bytes(b"nothing")
    for _ in range(2):
        with idle.serving():
            events = idle.ask("GET", "/v2/events")[1]["events"]
    assert [event["event"] for event in events] == ["start", "failing"]
    assert "the previous one, 1.0.0, is served" in events[1]["reason"]


def test_a_damaged_file_is_no_error_and_is_begun_anew(idle: fake_device.Device) -> None:
    file = idle.root / "events.jsonl"
    for damage in (b'{"sequence":7', b"\0" * 4096, b"\xff\n", b"{}\n" * 300, b"x" * (1 << 20)):
        file.write_bytes(damage)
        done = subprocess.run(idle.command("events"), capture_output=True, text=True, check=True)
        assert json.loads(done.stdout) == {"events": []}
        with idle.serving():
            (event,) = idle.ask("GET", "/v2/events")[1]["events"]
        assert (event["sequence"], event["event"]) == (1, "start")


def test_256_events_are_kept_and_the_answer_with_all_of_them_is_whole(
    idle: fake_device.Device,
) -> None:
    with idle.serving():
        pass
    file = idle.root / "events.jsonl"
    (line,) = file.read_text().splitlines()
    event = json.loads(line) | {"event": "refused", "model": "m" * 64, "reason": 'a "b" \\ ' * 20}
    lines = [json.dumps(event | {"sequence": 1000 + n}) + "\n" for n in range(256)]
    file.write_text("".join(lines))
    with idle.serving():
        events = idle.ask("GET", "/v2/events")[1]["events"]
    assert len(events) == 256
    assert [events[0]["sequence"], *(e["sequence"] for e in events[-2:])] == [1001, 1255, 1256]
    assert [event["event"] for event in events[-2:]] == ["refused", "start"]
    assert events[0]["reason"] == event["reason"]


def test_an_event_that_cannot_be_recorded_fails_nothing(
    tmp_path: Path, device: Device, key: PrivateKey
) -> None:
    (device.root / "events.jsonl").mkdir(parents=True)
    path = device.write(tmp_path / "1.epk", key, version="1.0.0").path
    done = subprocess.run(device.command("install", path), capture_output=True, check=False)
    assert (done.returncode, json.loads(done.stdout)["ok"]) == (0, True)
    assert told(device) == []


def test_commands_at_the_same_time_lose_no_event(
    tmp_path: Path, device: Device, key: PrivateKey
) -> None:
    paths = [
        device.write(tmp_path / f"{name}.epk", key, name=name, version="1.0.0").path
        for name in ("a", "b", "c", "d")
    ]
    threads = [threading.Thread(target=device.run, args=("install", path)) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    events = told(device)
    assert sorted(event["model"] for event in events) == ["a", "b", "c", "d"]
    assert [event["sequence"] for event in events] == [1, 2, 3, 4]

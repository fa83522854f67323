from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, cast

import pytest

from edgepack.channels.agent import Agent
from edgepack.channels.device_status import DeviceStatus
from edgepack.channels.ssh_session import Completed, Session
from edgepack.errors import (
    ChannelError,
    ConfigError,
    DeviceError,
    EdgepackError,
    PackageError,
    TrustError,
)

STATUS: dict[str, Any] = {
    "agent": "0.1.0",
    "arch": "aarch64",
    "target": "raspberrypi4",
    "serving": True,
    "disk_free": 7,
    "keys": ["ab"],
    "models": [
        {
            "name": "m",
            "current": {"version": "1.0.0", "manifest": "cd"},
            "previous": None,
            "floor": "1.0.0",
            "served": {
                "version": "1.0.0",
                "state": "READY",
                "reason": "",
                "deaths": 2,
                "restarts": 1,
                "psi": 0.25,
            },
        }
    ],
    "machine": "aarch64",
    "uptime": 9,
    "boot": "id",
    "time": 1,
    "disk_used": 8,
    "last_install": {
        "sequence": 3,
        "digest": None,
        "model": "m",
        "version": None,
        "ok": False,
        "check": "key",
        "reason": "by nobody",
        "time": 1,
        "boot": "id",
        "boot_ms": 2,
    },
    "push": {
        "url": "http://collector/",
        "failures": 3,
        "last_failure": "nobody is there",
        "models": [{"name": "m", "pushed": 7, "last": 9}],
    },
}
OLDER_STATUS = {
    key: STATUS[key] for key in ("agent", "arch", "target", "serving", "disk_free", "keys")
}
OLDER_STATUS["models"] = [{k: v for k, v in STATUS["models"][0].items() if k != "served"}]


class OneAnswer:
    """A session on which every command ends in one way."""

    name = "pi"

    def __init__(self, status: int, stdout: str = "", stderr: str = "") -> None:
        self.done = Completed(status=status, stdout=stdout.encode(), stderr=stderr)
        self.commands: list[list[str]] = []

    def run(self, command: Sequence[str], *, timeout: float | None = None) -> Completed:
        self.commands.append(list(command))
        return self.done


def agent(status: int, stdout: str = "", stderr: str = "") -> Agent:
    session = cast("Session", OneAnswer(status, stdout, stderr))
    return Agent(session, "/var/lib/edgepack", "ssh://pi")


def refusal(status: int, stdout: str = "", stderr: str = "") -> EdgepackError:
    with pytest.raises(EdgepackError) as caught:
        agent(status, stdout, stderr).call("install", "/x.epk")
    return caught.value


@pytest.mark.parametrize(
    ("status", "check", "error"),
    [
        (2, "usage", ConfigError),
        (7, "package", PackageError),
        (8, "signature", TrustError),
        (8, "key", TrustError),
        (8, "version", TrustError),
        (9, "source", ChannelError),
        (10, "golden", DeviceError),
        (10, "disk", DeviceError),
    ],
)
def test_refusals_of_the_agent_keep_their_class_check_and_reason(
    status: int, check: str, error: type[EdgepackError]
) -> None:
    found = refusal(status, f'{{"ok":false,"check":"{check}","reason":"because"}}\n')
    assert type(found) is error
    assert found.exit_code == (status if status > 2 else 3)
    assert found.message == f"pi refused ({check}): because"
    assert getattr(found, "check", check) == check


@pytest.mark.parametrize("status", [126, 127])
def test_no_agent_is_a_device_error_with_the_setup_command(status: int) -> None:
    found = refusal(status, stderr="sh: 1: not found")
    assert isinstance(found, DeviceError)
    assert "no agent is at /var/lib/edgepack/bin/edgepack-agent" in found.message
    assert found.hint == "edgepack device setup ssh://pi --target TARGET --trust KEY.pub"


@pytest.mark.parametrize(
    ("status", "stdout"),
    [(0, ""), (0, "hello"), (0, "[1]"), (0, '{"ok":false}'), (1, "{}"), (2, "usage"), (-1, "")],
)
def test_answers_that_are_none_are_device_errors(status: int, stdout: str) -> None:
    found = refusal(status, stdout, "first\nlast words\n")
    assert isinstance(found, DeviceError)
    assert found.message.endswith("is not understood: last words")


def test_what_a_login_shell_prints_before_the_answer_is_passed_over() -> None:
    answer = agent(0, 'Welcome to pi!\n{"ok":true,"model":"m"}\n').call("install", "/x.epk")
    assert answer == {"ok": True, "model": "m"}


def test_status_and_blobs_are_read_whole() -> None:
    status = agent(0, json.dumps(STATUS))
    assert status.status() == DeviceStatus.from_dict(STATUS)
    assert status.status().to_dict() == STATUS
    older = agent(0, json.dumps(OLDER_STATUS)).status()
    assert (older.last_install, older.models[0].served) == (None, None)
    assert agent(0, '{"blobs":["ab","cd"]}').blobs() == {"ab", "cd"}


EVENT = {
    "sequence": 3,
    "time": 0,
    "boot": "b",
    "boot_ms": 5,
    "event": "fallback",
    "model": "m",
    "version": "2.0.0",
    "reason": "it died",
}


def test_events_are_read_whole_and_those_of_another_kind_of_agent_are_a_device_error() -> None:
    unknown = EVENT | {"event": "melted", "model": None, "version": None, "reason": None}
    for told in ([], [EVENT, unknown]):
        found = agent(0, json.dumps({"events": told})).events()
        assert [event.to_dict() for event in found] == told
    for key in EVENT:
        less = {name: value for name, value in EVENT.items() if name != key}
        with pytest.raises(DeviceError, match="not understood"):
            agent(0, json.dumps({"events": [less]})).events()
    for answer in ({}, {"events": 1}, {"events": [1]}, {"events": [EVENT | {"time": "x"}]}):
        with pytest.raises(DeviceError, match="not understood"):
            agent(0, json.dumps(answer)).events()


@pytest.mark.parametrize("key", OLDER_STATUS)
def test_status_of_another_kind_of_agent_is_a_device_error(key: str) -> None:
    less = {name: value for name, value in STATUS.items() if name != key}
    with pytest.raises(DeviceError, match="not understood"):
        agent(0, json.dumps(less)).status()


def test_the_agent_is_called_with_its_root() -> None:
    session = OneAnswer(0, '{"ok":true}')
    Agent(cast("Session", session), "/opt/x", "ssh://pi/opt/x").call("rollback", "m")
    assert session.commands == [["/opt/x/bin/edgepack-agent", "--root", "/opt/x", "rollback", "m"]]

"""Speaking with the agent on a device: its commands, its one JSON line, its refusals.

The agent's exit codes are those of errors.py; ``check`` names the check that failed.
"""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from edgepack.channels.device_events import DeviceEvent
from edgepack.channels.device_status import DeviceStatus
from edgepack.channels.ssh_session import Completed, RemoteOutput, Session
from edgepack.errors import (
    ChannelError,
    ConfigError,
    DeviceError,
    EdgepackError,
    PackageError,
    TrustError,
)

_NOT_THERE = (126, 127)
"""What a POSIX shell exits with where a command cannot be run, or is not there."""


@dataclass(frozen=True)
class Agent:
    """The agent whose store is ``root`` on the device behind ``session``."""

    session: Session
    root: str
    url: str

    @property
    def binary(self) -> str:
        """Path of the agent on the device."""
        return f"{self.root}/bin/edgepack-agent"

    def status(self) -> DeviceStatus:
        """What is installed and running there."""
        answer = self.call("status")
        try:
            return DeviceStatus.from_dict(answer)
        except (LookupError, TypeError, ValueError) as error:
            raise self.not_understood("status") from error

    def events(self) -> tuple[DeviceEvent, ...]:
        """What befell its models, oldest first."""
        answer = self.call("events")
        try:
            return tuple(map(DeviceEvent.from_dict, answer["events"]))
        except (LookupError, TypeError, ValueError) as error:
            raise self.not_understood("events") from error

    def blobs(self) -> frozenset[str]:
        """Hex digests of the blobs in its store."""
        try:
            return frozenset(map(str, self.call("blobs")["blobs"]))
        except (LookupError, TypeError) as error:
            raise self.not_understood("blobs") from error

    def call(self, *arguments: str, timeout: float | None = None) -> dict[str, Any]:
        """Run a command of the agent and return its answer; its refusals are raised."""
        command = [self.binary, "--root", self.root, *arguments]
        done = self.session.run(command, timeout=timeout)
        answer = _last_object(done.stdout)
        if done.status == 0 and answer is not None and answer.get("ok", True) is True:
            return answer
        raise self.refusal(arguments[0], done, answer)

    @contextlib.contextmanager
    def stream(self, *arguments: str) -> Iterator[RemoteOutput]:
        """Run a command of the agent whose answer is no JSON, and give what it prints."""
        with self.session.stream([self.binary, "--root", self.root, *arguments]) as output:
            yield output

    def refusal(
        self, command: str, done: Completed, answer: dict[str, Any] | None
    ) -> EdgepackError:
        """What a command that failed is told as."""
        if done.status in _NOT_THERE:
            return DeviceError(
                f"{self.session.name}: no agent is at {self.binary} ({done.last_words()})",
                f"edgepack device setup {shlex.quote(self.url)} --target TARGET --trust KEY.pub",
                check="agent",
            )
        if answer is None or "reason" not in answer:
            return self.not_understood(command, done)
        check, reason = str(answer.get("check", "")), str(answer["reason"])
        message = f"{self.session.name} refused ({check}): {reason}"
        match done.status:
            case 2:  # of what it was told on its command line
                return ConfigError(message)
            case PackageError.exit_code:
                return PackageError(message, "edgepack verify shows whether the file is whole")
            case TrustError.exit_code:
                return TrustError(message, _trust_hint(check, self.url), check=check)
            case ChannelError.exit_code:
                return ChannelError(message)
            case _:
                return DeviceError(message, check=check)

    def not_understood(self, command: str, done: Completed | None = None) -> DeviceError:
        """The error for an answer of another kind of agent."""
        words = f": {done.last_words()}" if done else ""
        return DeviceError(
            f"{self.session.name}: the agent's answer to {command!r} is not understood{words}",
            f"Bring the agent up to date: edgepack device setup {shlex.quote(self.url)} …",
            check="agent",
        )


def _last_object(stdout: bytes) -> dict[str, Any] | None:
    """The last line that is a JSON object: a shell's start-up files may print before it."""
    for line in reversed(stdout.splitlines()):
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            return value
    return None


def _trust_hint(check: str, url: str) -> str:
    hints: dict[str, str] = {
        "key": f"Sign it with a key of the device's: edgepack device status {shlex.quote(url)}",
        "signature": "edgepack sign PACKAGE --key KEY",
        "version": "Compile it again with a higher --version",
    }
    return hints.get(check, "")

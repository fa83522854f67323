"""Speaking with the agent on a device: its commands, its one JSON line, its refusals.

The agent's exit codes are those of errors.py; ``check`` names the check that failed.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from typing import Any

from edgepack.channels.ssh_session import Completed, Session
from edgepack.errors import (
    ChannelError,
    DeviceError,
    EdgepackError,
    PackageError,
    TrustError,
)

_NOT_THERE = (126, 127)
"""What a POSIX shell exits with where a command cannot be run, or is not there."""


@dataclass(frozen=True, kw_only=True)
class InstalledVersion:
    """A version in the device's store; ``manifest`` is the digest of its target manifest."""

    version: str
    manifest: str


@dataclass(frozen=True, kw_only=True)
class InstalledModel:
    """A model on the device; nothing below ``floor`` can be installed any more."""

    name: str
    current: InstalledVersion | None
    previous: InstalledVersion | None
    floor: str


@dataclass(frozen=True, kw_only=True)
class DeviceStatus:
    """What the agent says of its device."""

    agent: str
    arch: str
    target: str
    serving: bool
    disk_free: int
    """Bytes free where the store is."""
    keys: tuple[str, ...]
    """Ids of the keys that the device trusts."""
    models: tuple[InstalledModel, ...]

    def to_dict(self) -> dict[str, Any]:
        """As it stands in ``--json`` output: the agent's own form."""

        def version(one: InstalledVersion | None) -> dict[str, str] | None:
            return None if one is None else {"version": one.version, "manifest": one.manifest}

        return {
            "agent": self.agent,
            "arch": self.arch,
            "target": self.target,
            "serving": self.serving,
            "disk_free": self.disk_free,
            "keys": list(self.keys),
            "models": [
                {
                    "name": model.name,
                    "current": version(model.current),
                    "previous": version(model.previous),
                    "floor": model.floor,
                }
                for model in self.models
            ],
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> DeviceStatus:
        """Out of the agent's answer; LookupError or TypeError where it is another agent's."""

        def version(one: dict[str, Any] | None) -> InstalledVersion | None:
            if one is None:
                return None
            return InstalledVersion(version=str(one["version"]), manifest=str(one["manifest"]))

        return cls(
            agent=str(data["agent"]),
            arch=str(data["arch"]),
            target=str(data["target"] or ""),
            serving=bool(data["serving"]),
            disk_free=int(data["disk_free"]),
            keys=tuple(map(str, data["keys"])),
            models=tuple(
                InstalledModel(
                    name=str(model["name"]),
                    current=version(model["current"]),
                    previous=version(model["previous"]),
                    floor=str(model["floor"]),
                )
                for model in data["models"]
            ),
        )


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
            raise self._not_understood("status") from error

    def blobs(self) -> frozenset[str]:
        """Hex digests of the blobs in its store."""
        try:
            return frozenset(map(str, self.call("blobs")["blobs"]))
        except (LookupError, TypeError) as error:
            raise self._not_understood("blobs") from error

    def call(self, *arguments: str, timeout: float | None = None) -> dict[str, Any]:
        """Run a command of the agent and return its answer; its refusals are raised."""
        command = [self.binary, "--root", self.root, *arguments]
        done = self.session.run(command, timeout=timeout)
        answer = _last_object(done.stdout)
        if done.status == 0 and answer is not None and answer.get("ok", True) is True:
            return answer
        raise self._refusal(arguments[0], done, answer)

    def _refusal(
        self, command: str, done: Completed, answer: dict[str, Any] | None
    ) -> EdgepackError:
        if done.status in _NOT_THERE:
            return DeviceError(
                f"{self.session.name}: no agent is at {self.binary} ({done.last_words()})",
                f"edgepack device setup {shlex.quote(self.url)} --target TARGET --trust KEY.pub",
                check="agent",
            )
        if answer is None or "reason" not in answer:
            return self._not_understood(command, done)
        check, reason = str(answer.get("check", "")), str(answer["reason"])
        message = f"{self.session.name} refused ({check}): {reason}"
        match done.status:
            case PackageError.exit_code:
                return PackageError(message, "edgepack verify shows whether the file is whole")
            case TrustError.exit_code:
                return TrustError(message, _trust_hint(check, self.url), check=check)
            case ChannelError.exit_code:
                return ChannelError(message)
            case _:
                return DeviceError(message, check=check)

    def _not_understood(self, command: str, done: Completed | None = None) -> DeviceError:
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

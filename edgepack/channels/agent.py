"""Speaking with the agent on a device: its commands, its one JSON line, its refusals.

The agent's exit codes are those of errors.py; ``check`` names the check that failed.
"""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from edgepack.channels.device_events import DeviceEvent
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


@dataclass(frozen=True, kw_only=True)
class InstalledVersion:
    """A version in the device's store; ``manifest`` is the digest of its target manifest."""

    version: str
    manifest: str


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """How a model does in the server that runs; no version where none of it starts."""

    version: str | None
    state: str
    reason: str
    """Why it is not the installed version that is served, or none; empty where all is well."""
    deaths: int
    restarts: int
    psi: float | None = None
    """Population stability index of the tensor that drifted the farthest; None where none has one."""


@dataclass(frozen=True, kw_only=True)
class LastInstall:
    """How the last attempt to install something ended; ``check`` and ``reason`` where it was refused."""

    sequence: int
    """Counts the attempts of this device: an order that needs no clock."""
    digest: str | None
    """Hex digits of the package's digest; None where the attempt did not come so far."""
    model: str | None
    version: str | None
    ok: bool
    check: str | None
    reason: str | None
    time: int
    """Milliseconds since 1970 by the device's clock, which may have been wrong."""
    boot: str
    boot_ms: int
    """Milliseconds since the start that ``boot`` names."""


@dataclass(frozen=True, kw_only=True)
class PushedModel:
    """Captures of a model: the last number that was pushed and confirmed, and the last there is."""

    name: str
    pushed: int
    last: int


@dataclass(frozen=True, kw_only=True)
class PushStatus:
    """How pushing captures goes; ``url`` is empty where push.json is not understood."""

    url: str
    failures: int
    """Attempts in a row that came to nothing."""
    last_failure: str | None
    models: tuple[PushedModel, ...]


@dataclass(frozen=True, kw_only=True)
class InstalledModel:
    """A model on the device; nothing below ``floor`` can be installed any more."""

    name: str
    current: InstalledVersion | None
    previous: InstalledVersion | None
    floor: str
    served: ServedModel | None = None


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
    # What agents before 0.1.0 do not tell.
    machine: str = ""
    """As ``uname -m`` has it."""
    uptime: int = 0
    """Seconds since the machine started."""
    boot: str = ""
    """The kernel's name for this start."""
    time: int = 0
    """Milliseconds since 1970 by the device's clock."""
    disk_used: int = 0
    """Bytes that the store has taken."""
    last_install: LastInstall | None = None
    push: PushStatus | None = None
    """None where nothing is to be pushed, or no server runs."""

    def to_dict(self) -> dict[str, Any]:
        """As it stands in ``--json`` output: the agent's own form."""
        lists = {"keys": list(self.keys), "models": [asdict(m) for m in self.models]}
        push = self.push and asdict(self.push) | {"models": [asdict(m) for m in self.push.models]}
        return asdict(self) | lists | {"push": push}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> DeviceStatus:
        """Out of the agent's answer; LookupError or TypeError where it is another agent's."""

        def version(one: dict[str, Any] | None) -> InstalledVersion | None:
            if one is None:
                return None
            return InstalledVersion(version=str(one["version"]), manifest=str(one["manifest"]))

        attempt, push = data.get("last_install"), data.get("push")
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
                    served=_served(model.get("served")),
                )
                for model in data["models"]
            ),
            machine=str(data.get("machine", "")),
            uptime=int(data.get("uptime", 0)),
            boot=str(data.get("boot", "")),
            time=int(data.get("time", 0)),
            disk_used=int(data.get("disk_used", 0)),
            last_install=None if attempt is None else _last_install(attempt),
            push=None if push is None else _push(push),
        )


def _served(data: dict[str, Any] | None) -> ServedModel | None:
    if data is None:
        return None
    return ServedModel(
        version=_text_or_none(data["version"]),
        state=str(data["state"]),
        reason=str(data["reason"]),
        deaths=int(data["deaths"]),
        restarts=int(data["restarts"]),
        psi=None if data.get("psi") is None else float(data["psi"]),
    )


def _last_install(data: dict[str, Any]) -> LastInstall:
    return LastInstall(
        sequence=int(data["sequence"]),
        digest=_text_or_none(data["digest"]),
        model=_text_or_none(data["model"]),
        version=_text_or_none(data["version"]),
        ok=bool(data["ok"]),
        check=_text_or_none(data["check"]),
        reason=_text_or_none(data["reason"]),
        time=int(data["time"]),
        boot=str(data["boot"]),
        boot_ms=int(data["boot_ms"]),
    )


def _push(data: dict[str, Any]) -> PushStatus:
    return PushStatus(
        url=str(data["url"]),
        failures=int(data["failures"]),
        last_failure=_text_or_none(data["last_failure"]),
        models=tuple(
            PushedModel(name=str(m["name"]), pushed=int(m["pushed"]), last=int(m["last"]))
            for m in data["models"]
        ),
    )


def _text_or_none(value: object) -> str | None:
    return None if value is None else str(value)


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

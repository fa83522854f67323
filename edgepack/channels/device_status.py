"""What an agent says of its device: one document, which docs/observing.md describes field by field."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


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

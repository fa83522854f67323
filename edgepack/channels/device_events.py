"""What befell a device's models, as its agent keeps it.

The agent's form is one object for each event; docs/observing.md says what each kind means.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class DeviceEvent:
    """A start, an installation, a refusal, a rollback, a fallback, or a model that fails."""

    sequence: int
    """The order of events on one device, whatever its clock says."""
    time: int
    """Milliseconds since 1970 by the device's clock, which may have been wrong."""
    boot: str
    boot_ms: int
    """Milliseconds since the start that ``boot`` names."""
    event: str
    model: str | None
    version: str | None
    reason: str | None

    def to_dict(self) -> dict[str, Any]:
        """As it stands in ``--json`` output: the agent's own form."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> DeviceEvent:
        """Out of the agent's answer; LookupError, TypeError or ValueError where it is another's."""

        def text(name: str) -> str | None:
            value = data[name]
            return None if value is None else str(value)

        return cls(
            sequence=int(data["sequence"]),
            time=int(data["time"]),
            boot=str(data["boot"]),
            boot_ms=int(data["boot_ms"]),
            event=str(data["event"]),
            model=text("model"),
            version=text("version"),
            reason=text("reason"),
        )

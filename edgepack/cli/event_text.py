"""A device's events in words, for people; from the fields that ``--json`` prints."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from edgepack.cli.output import columns
from edgepack.cli.text import Fields

_EPOCH = datetime(1970, 1, 1)


def events(found: Sequence[Fields]) -> str:
    """The table of ``device events``, oldest first, by the device's own clock in UTC."""
    if not found:
        return "no events"
    head = ("TIME", "EVENT", "MODEL", "VERSION", "REASON")
    rows = (
        (
            _time(event["time"]),
            event["event"],
            event["model"] or "",
            event["version"] or "",
            event["reason"] or "",
        )
        for event in found
    )
    return columns([head, *rows])


def _time(milliseconds: int) -> str:
    try:
        moment = _EPOCH + timedelta(seconds=milliseconds // 1000)
    except OverflowError:  # a clock that stands beyond the year 9999
        return "?"
    return moment.isoformat(sep=" ")

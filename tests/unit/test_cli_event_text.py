from __future__ import annotations

import pytest

from edgepack.cli import event_text


def test_events_are_a_table_with_the_devices_time() -> None:
    one = {"event": "start", "model": None, "version": "0.1.0", "reason": None, "time": 1000}
    two = {"event": "fallback", "model": "m", "version": "2.0.0", "reason": "it died"}
    assert event_text.events([one, two | {"time": 1764383710123}]).splitlines() == [
        "TIME                 EVENT     MODEL  VERSION  REASON",
        "1970-01-01 00:00:01  start            0.1.0",
        "2025-11-29 02:35:10  fallback  m      2.0.0    it died",
    ]
    assert event_text.events([]) == "no events"


@pytest.mark.parametrize("time", [10**15, 2**63 - 1])
def test_a_clock_that_is_far_off_is_no_error(time: int) -> None:
    event = {"event": "start", "model": None, "version": "", "reason": None, "time": time}
    assert event_text.events([event]).splitlines()[1].split() == ["?", "start"]

"""From scores to a state: two thresholds, and how many windows and how long a score must hold.

Time is the messages' own, as a sum of steps. A step back counts nothing and a step ahead no more than
``step_seconds_most``, so that a clock that is set raises no alarm and hides none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Rule:
    """When one element of one output is an alarm.

    ``raise_at`` above ``clear_at``: high scores are bad. Below it: low ones are.
    """

    name: str
    output: str
    raise_at: float
    clear_at: float
    index: int = 0
    raise_windows: int = 1
    raise_seconds: float = 0.0
    clear_windows: int = 1
    clear_seconds: float = 0.0
    step_seconds_most: float = 60.0
    action: str = ""

    def __post_init__(self) -> None:
        """Refuse what could never work."""
        if not self.name:
            raise ValueError("name is empty")
        if not (math.isfinite(self.raise_at) and math.isfinite(self.clear_at)):
            raise ValueError("raise_at and clear_at must be finite")
        if self.raise_at == self.clear_at:
            raise ValueError(
                "raise_at and clear_at are equal: between them lies what changes nothing"
            )
        if self.index < 0 or self.raise_windows < 1 or self.clear_windows < 1:
            raise ValueError("index must be 0 or more, raise_windows and clear_windows 1 or more")
        if self.raise_seconds < 0 or self.clear_seconds < 0 or self.step_seconds_most <= 0:
            raise ValueError("seconds must not be negative, and step_seconds_most be above zero")


@dataclass(frozen=True)
class State:
    """Where a rule stands for one source; ``windows`` and ``seconds`` are those towards a change."""

    alarm: bool = False
    windows: int = 0
    seconds: float = 0.0
    time: float | None = None


def judge(rule: Rule, state: State, score: float, time: float) -> State:
    """The state after one window. NaN is neither bad nor good: it breaks whatever was under way."""
    step = 0.0 if state.time is None else time - state.time
    step = min(max(step, 0.0), rule.step_seconds_most)
    if not _towards_change(rule, state.alarm, score):
        return State(alarm=state.alarm, time=time)
    after = replace(
        state,
        windows=state.windows + 1,
        seconds=state.seconds + step if state.windows else 0.0,
        time=time,
    )
    windows, seconds = (
        (rule.clear_windows, rule.clear_seconds)
        if state.alarm
        else (rule.raise_windows, rule.raise_seconds)
    )
    if after.windows >= windows and after.seconds >= seconds:
        return State(alarm=not state.alarm, time=time)
    return after


def _towards_change(rule: Rule, alarm: bool, score: float) -> bool:
    sign = 1 if rule.raise_at > rule.clear_at else -1
    if alarm:
        return sign * score <= sign * rule.clear_at
    return sign * score >= sign * rule.raise_at

from __future__ import annotations

import math
import random

import pytest
from mqtt_monitor.hysteresis import Rule, State, judge


def rule(**different: object) -> Rule:
    values: dict[str, object] = {"name": "r", "output": "y", "raise_at": 0.8, "clear_at": 0.5}
    return Rule(**(values | different))  # type: ignore[arg-type]


def alarms(which: Rule, *windows: tuple[float, float]) -> list[bool]:
    """The state after each (time, score)."""
    state, seen = State(), []
    for time, score in windows:
        state = judge(which, state, score, time)
        seen.append(state.alarm)
    return seen


def every_second(*scores: float) -> list[tuple[float, float]]:
    return list(enumerate(scores))


def test_between_the_thresholds_nothing_changes() -> None:
    scores = every_second(0.7, 0.8, 0.6, 0.79, 0.51, 0.5, 0.6, 0.79)
    assert alarms(rule(), *scores) == [False, True, True, True, True, False, False, False]


def test_low_scores_are_bad_where_raise_at_is_below_clear_at() -> None:
    low = rule(raise_at=10, clear_at=20)
    assert alarms(low, *every_second(15, 10, 15, 20, 15)) == [False, True, True, False, False]


def test_so_many_windows_in_a_row_and_one_between_starts_anew() -> None:
    three = rule(raise_windows=3, clear_windows=2)
    scores = every_second(0.9, 0.9, 0.7, 0.9, 0.9, 0.9, 0.1, 0.9, 0.1, 0.1)
    assert alarms(three, *scores) == [False] * 5 + [True] * 4 + [False]


def test_so_many_seconds_from_the_first_window_to_the_last() -> None:
    slow = rule(raise_seconds=10, clear_seconds=5)
    windows = [(100.0, 0.9), (105.0, 0.9), (109.9, 0.9), (110.0, 0.9), (111.0, 0.1), (116.0, 0.1)]
    assert alarms(slow, *windows) == [False, False, False, True, True, False]


def test_a_clock_that_is_set_ahead_or_back_raises_nothing_by_itself() -> None:
    slow = rule(raise_seconds=100, step_seconds_most=60)
    assert alarms(slow, (0, 0.9), (1.7e9, 0.9)) == [False, False]
    assert alarms(slow, (1.7e9, 0.9), (0, 0.9), (60, 0.9), (100, 0.9)) == [False] * 3 + [True]


def test_not_a_number_is_no_alarm_and_breaks_a_row() -> None:
    two = rule(raise_windows=2, clear_windows=2)
    scores = every_second(0.9, math.nan, 0.9, 0.9, 0.1, math.nan, 0.1, 0.1)
    assert alarms(two, *scores) == [False, False, False, True, True, True, True, False]


def test_random_scores_never_change_the_state_without_reaching_a_threshold() -> None:
    generator = random.Random(5)
    for _ in range(200):
        which = rule(raise_windows=generator.randint(1, 4), clear_windows=generator.randint(1, 4))
        scores = [generator.random() for _ in range(100)]
        states = [False, *alarms(which, *every_second(*scores))]
        for score, before, after in zip(scores, states, states[1:], strict=False):
            if after and not before:
                assert score >= which.raise_at
            if before and not after:
                assert score <= which.clear_at


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"clear_at": 0.8},
        {"raise_at": math.nan},
        {"index": -1},
        {"raise_windows": 0},
        {"clear_seconds": -1.0},
        {"step_seconds_most": 0.0},
    ],
)
def test_a_rule_that_cannot_work_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        rule(**wrong)

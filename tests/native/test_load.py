"""The agent under load while workers are killed and versions change: ``make load``, in short."""

from __future__ import annotations

from tests.load.campaign import run


def test_under_load_no_answer_is_wrong_or_lost_and_nothing_grows() -> None:
    report = run(25, seed=5)
    assert report.trouble() == [], report.table()
    assert report.counts["right"] > 1000
    assert min(report.done[kind] for kind in ("kills", "installs", "rollbacks", "unloads")) > 0

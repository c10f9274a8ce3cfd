"""How far an attempt came, from what its ranks report."""

from __future__ import annotations

import time
from typing import Any

import pytest

from distrun.supervise.steps import Steps


def milestone(what: str, step: int, time_s: float = 0.0) -> dict[str, Any]:
    return {"what": what, "step": step, "time_s": time_s}


def test_a_script_that_reports_nothing_is_not_said_to_be_stuck() -> None:
    steps = Steps()
    assert not steps.reports
    assert (steps.furthest, steps.lost, steps.kept) == (-1, 0, None)
    assert steps.useful_s(failed=True) is None


def test_the_steps_since_the_last_checkpoint_are_lost() -> None:
    steps = Steps()
    steps.on_milestone(milestone("begun", 100))
    for step in range(101, 120):
        steps.on_metrics(step)
    assert (steps.kept, steps.lost, steps.furthest) == (100, 19, 119)
    steps.on_milestone(milestone("saved", 115, 2.5))
    assert (steps.kept, steps.lost, steps.save_s) == (115, 4, 2.5)


def test_only_steps_that_count_are_useful_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(1000, 2000, 10))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(now)))
    steps = Steps()
    steps.on_milestone(milestone("begun", 0))
    for step in range(1, 12):  # ten intervals of 10 s
        steps.on_metrics(step)
    assert steps.useful_s(failed=False) == pytest.approx(110)
    steps.on_milestone(milestone("saved", 5))
    assert steps.useful_s(failed=True) == pytest.approx(50)

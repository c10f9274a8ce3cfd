"""Where the time of a run went."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from distrun.report.goodput import goodput
from distrun.report.lines import read_numbers
from distrun.report.story import read_story
from tests.unit.report.made import T0, attempt, made_run, step


def spent(tmp_path: Path, metrics: list[Any], events: list[Any], **how: Any) -> dict[str, float]:
    run = made_run(tmp_path, metrics=metrics, events=events)
    story = read_story(run)
    numbers = read_numbers(run, [each.begin for each in story.attempts])
    found = goodput(story.attempts, numbers, (T0, T0 + 20.0), **how)
    assert found and math.isclose(found.total_s, 20.0)
    return {kind: round(value, 6) for kind, value in found.seconds.items() if value}


STEPS = [step(n, 4.0 + n, loss=1.0) for n in range(1, 11)]
"""From 5 to 14 s."""


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({}, {"start": 5.0, "train": 9.0, "end": 6.0}),
        ({"failed": True}, {"start": 5.0, "train": 9.0, "lost": 6.0}),
        ({"failed": True, "waited_s": 5.0}, {"start": 5.0, "train": 9.0, "wait": 5.0, "lost": 1.0}),
        ({"failed": True, "waited_s": 99.0}, {"start": 5.0, "train": 9.0, "wait": 6.0}),
    ],
)
def test_one_attempt(tmp_path: Path, how: dict[str, Any], expected: dict[str, float]) -> None:
    assert spent(tmp_path, STEPS, [attempt(0.0)], **how) == expected


def test_steps_that_a_later_attempt_does_again_are_lost(tmp_path: Path) -> None:
    """Saved after step 2, failed after step 4, at 9 s; the second attempt begins with step 3."""
    first = [step(n, 4.0 + n, loss=1.0) for n in range(1, 5)]
    second = [step(n, 9.0 + n, loss=1.0) for n in range(3, 7)]
    found = spent(tmp_path, first + second, [attempt(0.0), attempt(9.0)])
    assert found == {
        "start": 5.0,
        "train": 1.0 + 3.0,
        "lost": 2.0 + 1.0,
        "restart": 3.0,
        "end": 5.0,
    }


def test_the_end_of_an_attempt_that_was_stopped_and_saved_is_not_lost(tmp_path: Path) -> None:
    first = [step(n, 4.0 + n, loss=1.0) for n in range(1, 5)]
    second = [step(n, 9.0 + n, loss=1.0) for n in range(5, 7)]
    stopped = {"event": "attempt_ended", "time": T0 + 8.5, "failure": ""}
    found = spent(tmp_path, first + second, [attempt(0.0), stopped, attempt(9.0)])
    assert "lost" not in found and found["end"] == 1.0 + 5.0


def test_saving_is_no_training(tmp_path: Path) -> None:
    found = spent(tmp_path, [*STEPS, step(5, 9.5, save_s=2.0)], [attempt(0.0)])
    assert found == {"start": 5.0, "train": 7.0, "save": 2.0, "end": 6.0}


def test_ranks_that_save_at_once_take_the_time_of_one(tmp_path: Path) -> None:
    saves = [step(5, 9.5, rank=rank, save_s=2.0) for rank in range(8)]
    assert spent(tmp_path, [*STEPS, *saves], [attempt(0.0)])["save"] == 2.0


def test_an_attempt_that_logs_nothing_is_a_start(tmp_path: Path) -> None:
    found = spent(tmp_path, [step(n, 14.0 + n, loss=1.0) for n in (1, 2)],
                  [attempt(0.0), attempt(10.0)])  # fmt: skip
    assert found == {"start": 10.0, "restart": 5.0, "train": 1.0, "end": 4.0}


def test_without_a_step_nothing_is_told(tmp_path: Path) -> None:
    run = made_run(tmp_path)
    assert goodput(read_story(run).attempts, read_numbers(run, [T0]), (T0, T0 + 1)) is None

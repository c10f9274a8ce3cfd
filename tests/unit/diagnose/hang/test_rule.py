"""When a job is examined for a hang."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from distrun.diagnose.hang.progress import Look
from distrun.diagnose.hang.rule import Rule
from tests.unit.diagnose.hang.looks import group, look

WAITS, LATE = look(group(4, 3)), look(group(3, 3))
"""Rank 0 has called a collective that rank 1 has not."""


class Watched:
    """A rule, and the time."""

    def __init__(self, ranks: int = 2, hang_timeout_s: float = 80.0) -> None:
        self.rule = Rule(hang_timeout_s, 0.0)
        self.now = 0.0
        for rank in range(ranks):
            self.rule.began(rank, 0.0)

    def look(self, looks: Mapping[int, Look], for_s: float, every_s: float = 5.0) -> None:
        """Look at the ranks every few seconds."""
        end = self.now + for_s
        while self.now < end:
            self.now += every_s
            self.rule.looked(self.now, looks)

    @property
    def idle_s(self) -> float | None:
        return self.rule.idle_s(self.now)


def test_ranks_that_wait_for_an_idle_rank_are_examined_after_the_timeout() -> None:
    it = Watched()
    it.look({0: WAITS, 1: LATE}, 80.0)
    assert it.idle_s is None, "the first look was after 5 s"
    it.look({0: WAITS, 1: LATE}, 5.0)
    assert it.idle_s == 80.0


def test_a_rank_that_works_is_waited_for() -> None:
    it = Watched()
    for n in range(40):
        it.look({0: WAITS, 1: look(group(3, 3), cpu_s=5.0 * n)}, 5.0)
    assert it.idle_s is None


def test_one_group_hangs_while_ranks_of_another_go_on() -> None:
    it = Watched(ranks=3)
    for n in range(20):
        it.look({0: WAITS, 1: LATE, 2: look(group(n, n, (2,), name="1"))}, 5.0)
    assert it.idle_s == 95.0


def test_ranks_that_are_all_idle_are_examined_whatever_they_wait_for() -> None:
    it = Watched()
    it.look({0: LATE, 1: Look()}, 90.0)
    assert it.idle_s == 85.0


@pytest.mark.parametrize(
    ("torch_s", "limit_s"), [(10.0, 8.0), (25.0, 20.0), (60.0, 55.0), (600.0, 80.0)]
)
def test_the_limit_is_below_torchs_own(torch_s: float, limit_s: float) -> None:
    it = Watched()
    looks = {0: look(group(4, 3, timeout_s=torch_s)), 1: look(group(3, 3, timeout_s=torch_s))}
    it.look(looks, limit_s, every_s=0.5)
    assert it.idle_s is None
    it.look(looks, 0.5, every_s=0.5)
    assert it.idle_s == limit_s


@pytest.mark.parametrize(
    ("timeout_s", "every_s"), [(3.0, 1.0), (20.0, 2.5), (300.0, 15.0)], ids=str
)
def test_ranks_are_looked_at_some_times_within_the_limit(timeout_s: float, every_s: float) -> None:
    assert Rule(timeout_s, 0.0).look_s == every_s


def test_a_short_limit_of_torch_makes_the_looks_closer() -> None:
    it = Watched(hang_timeout_s=300.0)
    it.look({0: look(group(4, 3, timeout_s=20.0)), 1: LATE}, 5.0)
    assert it.rule.look_s == 2.0


def test_time_in_which_nobody_looked_does_not_count() -> None:
    it = Watched()
    it.look({0: WAITS, 1: LATE}, 50.0)
    it.look({0: WAITS, 1: LATE}, 3600.0, every_s=3600.0)
    assert it.idle_s is None
    it.look({0: WAITS, 1: LATE}, 35.0)
    assert it.idle_s == 80.0


def test_ranks_that_begin_long_after_the_watch_are_not_left_out() -> None:
    it = Watched(ranks=0)
    it.now = 600.0
    it.rule.began(0, it.now)
    it.rule.began(1, it.now)
    it.look({0: WAITS}, 85.0)
    assert it.idle_s == 80.0, "rank 1 has never answered"


def test_ranks_that_were_examined_without_a_result_are_left_alone_for_long() -> None:
    it = Watched()
    it.look({0: WAITS, 1: LATE}, 85.0)
    assert it.idle_s == 80.0
    it.rule.examined()
    assert it.idle_s is None
    it.look({0: WAITS, 1: LATE}, 75.0)
    assert it.idle_s is None
    it.look({0: WAITS, 1: LATE}, 5.0)
    assert it.idle_s == 160.0


def test_progress_ends_that_peace() -> None:
    it = Watched()
    it.look({0: WAITS, 1: LATE}, 85.0)
    assert it.idle_s == 80.0
    it.rule.examined()
    it.look({0: look(group(4, 4)), 1: look(group(4, 4))}, 5.0)
    assert it.idle_s is None
    it.look({0: look(group(5, 4)), 1: look(group(4, 4))}, 85.0)
    assert it.idle_s == 80.0


def test_an_end_of_a_rank_gives_the_others_time() -> None:
    it = Watched()
    it.look({0: WAITS, 1: LATE}, 85.0)
    it.rule.ended(1, it.now)
    assert it.idle_s is None
    it.look({0: WAITS}, 80.0)
    assert it.idle_s == 80.0
    assert it.rule.witness(1, "a", it.now).record == LATE.record, "what it had answered last"


def test_no_rank_is_no_hang() -> None:
    it = Watched(ranks=0)
    it.look({}, 500.0)
    it.look({7: WAITS}, 5.0)
    assert it.idle_s is None

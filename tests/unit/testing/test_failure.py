"""Which failure of a run on several ranks comes first, and how long the others are waited for."""

from __future__ import annotations

import math
import signal

import pytest

from distrun.comm import World
from distrun.testing import RanksFailed, processes, run_ranks
from distrun.testing.failure import RankFailure


def failure(rank: int, at_s: float, *, follows: bool = False) -> RankFailure:
    what = "still running" if at_s == math.inf else f"ValueError: of rank {rank}"
    return RankFailure(rank, what, f"trace of {rank}", at_s, follows=follows)


@pytest.mark.parametrize(
    ("failures", "order"),
    [
        ([failure(0, 2.0), failure(1, 1.0)], [1, 0]),
        ([failure(1, 1.0), failure(0, 1.0)], [0, 1]),
        # One that only says that another is gone may be told of before that other.
        ([failure(0, 1.0, follows=True), failure(1, 2.0)], [1, 0]),
        ([failure(0, 1.0, follows=True), failure(1, 0.5, follows=True)], [1, 0]),
        ([failure(0, math.inf), failure(1, 2.0, follows=True)], [1, 0]),
    ],
)
def test_the_first_failure_is_the_cause_and_not_what_followed_from_it(
    failures: list[RankFailure], order: list[int]
) -> None:
    error = RanksFailed(failures, 3)
    assert [each.rank for each in error.failures] == order
    assert f"(rank {order[0]} was the first; 2 of 3 ranks failed)" in error.message


@pytest.mark.timeout(100)
@pytest.mark.usefixtures("warm_ranks")
def test_after_a_failure_the_others_are_not_waited_for_until_the_timeout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fn(world: World) -> None:
        if world.rank == 0:
            raise ValueError("no")
        signal.pause()

    monkeypatch.setattr(processes, "_GRACE_S", 0.2)
    with pytest.raises(RanksFailed, match="ValueError: no") as failed:
        run_ranks(fn, 2, "gloo", timeout_s=3600)
    assert [each.what for each in failed.value.failures] == ["ValueError: no", "still running"]

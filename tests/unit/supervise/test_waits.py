"""For which share of the time a rank waits, from the times of the calls of all."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from distrun.agent.looks import _last_calls
from distrun.diagnose.hang.evidence import Group
from distrun.supervise.waits import Waits
from tests.unit.diagnose.hang.jobs import entry

GROUPS = {"0": Group("0", "default_pg", (0, 1, 2), 0, 0)}


def calls(late_s: float, numbers: Sequence[int] = range(1, 11)) -> list[list[object]]:
    """Return the calls of a rank, one a second, as its agent tells them."""
    return [["0", number, number + late_s] for number in numbers]


def test_the_rank_that_calls_last_waits_least() -> None:
    waits = Waits()
    for rank, late_s in enumerate([0.0, 0.5, 0.2]):
        waits.looked(rank, GROUPS, calls(late_s), 0.0)
    told = waits.told()
    assert told is not None
    assert told["calls"] == 10 and told["windows"] == 1
    assert told["share"] == {
        "0": pytest.approx(5 / 9.5, abs=1e-4),
        "1": 0.0,
        "2": pytest.approx(3 / 9.5, abs=1e-4),
    }


def test_times_of_another_clock_are_moved_to_ours() -> None:
    waits = Waits()
    for rank, offset_s in enumerate([0.0, 1000.0, -1000.0]):
        waits.looked(rank, GROUPS, calls(0.0 - offset_s), offset_s)
    told = waits.told()
    assert told and set(told["share"].values()) == {0.0}


def test_a_call_that_two_looks_tell_counts_once() -> None:
    waits = Waits()
    for numbers in (range(1, 11), range(5, 15)):
        for rank in range(3):
            waits.looked(rank, GROUPS, calls(0.1 * rank, numbers), 0.0)
    told = waits.told()
    assert told and told["calls"] == 14


def test_a_minute_in_which_others_wait_for_a_download_is_not_the_whole_run() -> None:
    waits = Waits()
    for window, late_s in enumerate([600.0, 0.0, 0.0, 0.0, 0.0]):
        numbers = range(10 * window + 1, 10 * window + 11)
        for rank in range(3):
            waits.looked(rank, GROUPS, calls(late_s if rank == 0 else 0.0, numbers), 0.0)
        waits.next_window()
    told = waits.told()
    assert told and told["windows"] == 5
    assert set(told["share"].values()) == {0.0}


def test_a_long_run_keeps_few_windows_of_all_its_time() -> None:
    waits = Waits()
    for window in range(1000):
        numbers = range(10 * window + 1, 10 * window + 11)
        for rank in range(3):
            waits.looked(rank, GROUPS, calls(0.001 * rank, numbers), 0.0)
        waits.next_window()
    told = waits.told()
    assert told and 20 <= told["windows"] < 64


@pytest.mark.parametrize(
    "told",
    [None, {}, [1], [["0", 1]], [["0", "1", 2.0]], [[["0"], 1, 2.0]], [["0", 1, None]], "calls",
     [["0", n, float("nan")] for n in range(1, 11)],
     [["unknown", 1, 2.0]]],
)  # fmt: skip
def test_what_is_no_list_of_calls_is_passed_over(told: object) -> None:
    waits = Waits()
    for rank in range(3):
        waits.looked(rank, GROUPS, told, 0.0)
    assert waits.told() is None


def test_calls_that_a_rank_never_makes_are_forgotten() -> None:
    waits = Waits()
    waits.looked(0, GROUPS, calls(0.0, range(1, 100_000)), 0.0)
    assert len(waits._calls) < 20_000


def test_an_agent_tells_the_last_collectives_and_nothing_else() -> None:
    entries: list[object] = [entry(n, ago_s=100 - n) for n in range(1, 100)]
    entries += [entry(100, is_p2p=True), "hostile", {}, {"is_p2p": False}, None]
    for value in (float("inf"), "x", []):
        entries.append({**entry(1), "collective_seq_id": value})
    entries.append({**entry(1), "time_created_ns": 10**400})
    told = [*_last_calls(entries, 5.0)]
    assert [number for _, number, _ in told] == [*range(45, 100)]
    group, _, at_s = told[0]
    assert group == "0" and at_s == pytest.approx(entry(45, ago_s=55)["time_created_ns"] / 1e9 - 5)
    assert [*_last_calls("entries", 0.0)] == []

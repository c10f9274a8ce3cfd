"""The last collectives of all ranks, as rows and as trace events."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from distrun.diagnose.hang.evidence import Witness
from distrun.diagnose.hang.timeline import timeline
from distrun.diagnose.hang.trace import trace_of
from tests.unit.diagnose.hang.jobs import NOW_NS, done_up_to, entry, job, rank

AGO = {"ago_s": 10.0}


def of_three(*odd: dict[str, Any]) -> dict[int, Witness]:
    """Return a job of which ranks 0 and 2 wait in the fourth collective, and rank 1 does not."""
    told = {"world": 3}
    waits = [*done_up_to(3, ago_s=20.0), entry(4, **AGO)]
    ranks = [rank(n, waits, told=told) for n in (0, 2)]
    return job(*ranks, rank(1, [*done_up_to(3, ago_s=20.0), *odd], told=told))


def test_a_row_names_who_has_called_it_and_who_has_not() -> None:
    rows = timeline(of_three(), 10)
    assert [(row.seq, row.op, row.tensor) for row in rows] == [
        (seq, "all_reduce", "float32 [4, 4]") for seq in (1, 2, 3, 4)
    ]
    assert (rows[0].called, rows[0].waiting, rows[0].missing) == ((0, 1, 2), (), ())
    assert (rows[3].called, rows[3].waiting, rows[3].missing) == ((0, 2), (0, 2), (1,))
    assert rows[3].first_ns == NOW_NS - 10 * 10**9


def test_a_rank_without_a_record_is_told() -> None:
    found = of_three()
    rows = timeline({**found, 1: replace(found[1], record=None)}, 10)
    assert {(row.missing, row.unknown) for row in rows} == {((), (1,))}
    assert rows[0].called == (0, 2)


def test_calls_with_one_number_that_differ_are_two_rows() -> None:
    rows = timeline(of_three(entry(4, "broadcast", ago_s=9.0)), 1)
    last = [(row.op, row.called) for row in rows if row.seq == 4]
    assert last == [("all_reduce", (0, 2)), ("broadcast", (1,))]


@pytest.mark.parametrize(("last", "numbers"), [(0, []), (1, [3, 4]), (2, [2, 3, 4])])
def test_the_last_calls_of_each_rank_are_kept_those_of_one_that_is_behind_too(
    last: int, numbers: list[int]
) -> None:
    assert [row.seq for row in timeline(of_three(), last)] == numbers


def test_a_send_is_a_row_of_its_own_with_the_other_rank() -> None:
    send = entry(1, "send 1->2", is_p2p=True, p2p_seq_id=1, profiling_name="nccl:send 1->2")
    rows = [row for row in timeline(of_three(send), 10) if row.op == "send to 2"]
    assert [(row.called, row.waiting, row.missing) for row in rows] == [((1,), (1,), ())]


def test_groups_of_one_name_with_other_ranks_are_kept_apart() -> None:
    ranks = [
        rank(n, [entry(1, group=("1", "dp"))], told={"groups": {"1": ("dp", pair)}})
        for n, pair in enumerate([(0, 1), (0, 1), (2, 3), (2, 3)])
    ]
    assert [row.called for row in timeline(job(*ranks), 5)] == [(0, 1), (2, 3)]


def slices(trace: dict[str, Any]) -> list[dict[str, Any]]:
    return [event for event in trace["traceEvents"] if event["ph"] == "X"]


def test_the_trace_has_a_slice_for_each_collective_of_each_rank() -> None:
    trace = json.loads(json.dumps(trace_of(of_three())))
    found = slices(trace)
    assert len(found) == 4 + 3 + 4
    last = next(each for each in found if each["pid"] == 2 and each["name"] == "all_reduce #4")
    assert last["ts"] == pytest.approx(10e6)  # microseconds since the first call
    assert last["dur"] == pytest.approx(10e6)
    assert last["args"] == {
        "group": "the default group",
        "tensor": "float32 [4, 4]",
        "state": "scheduled",
        "end": "it has not ended",
    }
    assert all(each["dur"] >= 0 and each["ts"] >= 0 for each in found)


def test_the_ranks_of_one_collective_are_connected_by_arrows() -> None:
    events = trace_of(of_three())["traceEvents"]
    arrows: dict[int, list[str]] = {}
    for event in events:
        if event["ph"] in "stf":
            arrows.setdefault(event["id"], []).append(event["ph"])
    assert sorted(arrows.values()) == [["s", "f"], *[["s", "t", "f"]] * 3]


def test_a_recorded_end_is_used_and_one_that_is_not_ends_at_the_next_call() -> None:
    known = entry(1, done=True, ago_s=9.0, time_discovered_completed_ns=NOW_NS - 8 * 10**9)
    ranks = job(rank(0, [known, entry(2, done=True, ago_s=7.0), entry(3, ago_s=4.0)]))
    found = slices(trace_of(ranks))
    assert [round(each["dur"] / 1e6, 3) for each in found] == [1.0, 3.0, 4.0]
    assert found[1]["args"]["end"].startswith("not recorded")


def test_nothing_known_is_an_empty_trace() -> None:
    assert trace_of({})["traceEvents"] == []
    assert timeline({}, 10) == []

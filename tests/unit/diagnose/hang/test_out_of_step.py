"""Ranks whose calls are out of step in ways that a first look at the counts does not show."""

from __future__ import annotations

from pathlib import Path

from distrun.diagnose.hang.evidence import Witness
from distrun.diagnose.hang.verdict import explain
from tests.unit.diagnose.hang.jobs import IN_LOAD, PAST, entry, job, rank, waiting

IDLE_S = 300.0
GROUPS = {"0": ("default_pg", range(4)), "1": ("data", range(4)), "2": ("model", range(4))}


def in_group(number: int, name: str) -> Witness:
    """Return a rank in its first collective of a group."""
    desc = GROUPS[name][0]
    told = {"groups": GROUPS, "call": {"function": "all_reduce", "group": name, "arguments": {}}}
    return rank(number, [*PAST, entry(1, group=(name, desc))], told=told)


def test_the_one_rank_that_uses_two_groups_in_another_order_is_named() -> None:
    ranks = [in_group(0, "1"), in_group(1, "2"), in_group(2, "1"), in_group(3, "1")]
    verdict = explain(job(*ranks), idle_s=IDLE_S)
    assert (verdict.kind, verdict.culprits, verdict.is_certain) == ("cycle", (1,), True)
    assert (verdict.group, verdict.op) == ("data", "all_reduce")
    assert "rank 0 -> (data) rank 1 -> (model) rank 0" in verdict.sentence


def test_of_two_ranks_against_two_nobody_can_tell_whose_order_is_wrong() -> None:
    ranks = [in_group(0, "1"), in_group(1, "2"), in_group(2, "1"), in_group(3, "2")]
    verdict = explain(job(*ranks), idle_s=IDLE_S)
    assert (verdict.kind, verdict.culprits, verdict.is_certain) == ("cycle", (0, 1), False)


def test_a_group_of_fewer_ranks_may_have_been_left_out_by_the_others() -> None:
    """Rank 1 is in tp, and rank 0, which may have forgotten that, in the default group."""
    groups = {"0": ("default_pg", range(4)), "1": ("tp", (0, 1))}
    in_tp = rank(1, [*PAST, entry(1, group=("1", "tp"))], told={"groups": groups})
    in_default = rank(0, [*PAST, entry(7)], told={"groups": groups})
    verdict = explain(job(in_default, in_tp, *waiting(2, 3)), idle_s=IDLE_S)
    assert (verdict.kind, verdict.culprits, verdict.is_certain) == ("cycle", (0, 1), False)
    assert "ranks wait for one another: rank 0 -> (default) rank 1 -> (tp) rank 0" in (
        verdict.sentence
    )


def test_two_roots_of_a_broadcast_are_seen_though_others_have_left_it() -> None:
    def at_root(number: int) -> Witness:
        call = {"function": "broadcast", "group": "0", "arguments": {"src": number}}
        return rank(number, [*PAST, entry(7, "broadcast")], told={"call": call})

    def beyond(number: int) -> Witness:
        return rank(number, [*PAST, entry(7, "broadcast", done=True), entry(8)])

    verdict = explain(job(at_root(0), at_root(1), beyond(2), beyond(3)), idle_s=IDLE_S)
    assert (verdict.kind, verdict.culprits, verdict.is_certain) == ("mismatch", (0, 1), False)
    assert verdict.seq == 7
    assert "rank 0 called broadcast (src=0)" in verdict.sentence


def test_the_arguments_of_a_later_call_are_not_taken_for_those_of_one_that_has_not_ended() -> None:
    """All have an asynchronous broadcast behind them, and two are in the next one."""

    def at(number: int, src: int, *entries: object) -> Witness:
        call = {"function": "broadcast", "group": "0", "arguments": {"src": src}}
        return rank(number, [*PAST, entry(7, "broadcast"), *entries], told={"call": call})  # type: ignore[list-item]

    ahead, behind = at(0, 3, entry(8, "broadcast")), at(1, 0)
    verdict = explain(job(ahead, behind), idle_s=IDLE_S)
    assert verdict.kind != "mismatch"


def test_a_handle_that_is_waited_for_where_it_is_made_is_a_wait_for_the_collective(
    tmp_path: Path,
) -> None:
    script = tmp_path / "train.py"
    script.write_text("def step(x):\n    dist.all_reduce(x, async_op=True).wait()\n")
    at = [(str(script), 2, "step")]
    verdict = explain(job(*waiting(0, 2, 3, at=at), rank(1, PAST, at=IN_LOAD)), idle_s=IDLE_S)
    assert "3 of 4 ranks called it at train.py:2 (wait)" in verdict.sentence
    assert verdict.culprits == (1,)


def test_a_rank_that_has_never_answered_is_held_by_its_gil() -> None:
    silent = rank(1, at=IN_LOAD, has_record=False, age_s=8.0)
    verdict = explain(job(*waiting(0, 2, 3), silent), idle_s=IDLE_S)
    assert (verdict.kind, verdict.culprits) == ("gil", (1,))

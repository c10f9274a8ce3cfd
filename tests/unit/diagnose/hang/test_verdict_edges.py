"""Verdicts where nothing is missing, nothing is recorded, or nothing is wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from distrun.diagnose.hang.evidence import Handled, Witness
from distrun.diagnose.hang.findings import verdict_of
from distrun.diagnose.hang.verdict import explain
from tests.unit.diagnose.hang.jobs import (
    C10D,
    IN_COLLECTIVE,
    IN_LOAD,
    PAST,
    done_up_to,
    entry,
    job,
    rank,
    waiting,
)
from tests.unit.diagnose.hang.test_verdict import IDLE_S, IN_LOADER

INIT = ((C10D, 3, "init_process_group"), ("/me/train.py", 5, "main"))
NEW_GROUP = ((C10D, 3, "new_group"), ("/me/train.py", 6, "main"))


def test_all_ranks_in_the_input_pipeline_are_told_as_such() -> None:
    verdict = explain(job(*(rank(n, PAST, at=IN_LOADER) for n in range(4))), idle_s=IDLE_S)
    assert (verdict.kind, verdict.culprits) == ("all_input", ())
    assert verdict.sentence == (
        "hang: all 4 ranks wait for data: ranks 0-3 wait for the DataLoader at train.py:80 (main)"
        " for 300 s"
    )


def test_a_rank_without_a_record_that_is_seen_in_the_collective_waits_too() -> None:
    unrecorded = rank(2, has_record=False)
    culprit = rank(1, PAST, at=IN_LOAD)
    verdict = explain(job(*waiting(0, 3), unrecorded, culprit), idle_s=IDLE_S)
    assert (verdict.culprits, verdict.waiting) == ((1,), (0, 2, 3))
    assert "3 of 4 ranks called it at train.py:88 (all_reduce); rank 1 is at" in verdict.sentence


def test_without_a_record_it_is_named_if_nobody_else_is_missing() -> None:
    verdict = explain(job(*waiting(0, 1, 3), rank(2, has_record=False)), idle_s=IDLE_S)
    assert verdict.culprits == (2,)
    assert "waits for rank 2: 3 of 4 ranks called it" in verdict.sentence


@pytest.mark.parametrize("known", [{"idle_s": 0.5}, {"state": "R"}])
def test_a_rank_at_work_is_late_by_seconds_and_no_hang(known: dict[str, Any]) -> None:
    idle_s = None if "state" in known else IDLE_S
    late = rank(1, PAST, at=IN_LOAD, **known)
    verdict = explain(job(*waiting(0, 2, 3), late), idle_s=idle_s)
    assert verdict.kind == "late"
    assert verdict.sentence.startswith("late: all_reduce #7 of the default group")
    assert "waits for rank 1, 312.0 s late: 3 of 4 ranks called it" in verdict.sentence
    assert "hang" not in verdict.sentence


@pytest.mark.parametrize(
    ("frames", "kind", "function"),
    [(INIT, "init", "init_process_group"), (NEW_GROUP, "no_group", "new_group")],
)
def test_a_rank_that_does_not_take_part_in_making_a_group_is_named(
    frames: Any, kind: str, function: str
) -> None:
    told: dict[str, Any] = {"groups": {}} if kind == "init" else {}
    ranks = [rank(n, at=frames, told=told) for n in (0, 2, 3)]
    verdict = explain(job(*ranks, rank(1, at=IN_LOAD, told=told)), idle_s=IDLE_S)
    assert (verdict.kind, verdict.culprits, verdict.op) == (kind, (1,), function)
    assert f"{function} waits for rank 1: 3 of 4 ranks called it at train.py:" in verdict.sentence


def test_a_rank_that_makes_a_group_alone_is_named_not_those_that_train_on() -> None:
    verdict = explain(job(*waiting(0, 1, 3), rank(2, PAST, at=NEW_GROUP)), idle_s=IDLE_S)
    assert (verdict.culprits, verdict.op) == ((2,), "all_reduce")
    assert "rank 2 is in new_group at train.py:6 (main)" in verdict.sentence


def test_a_rank_that_stays_after_all_others_have_ended_is_named() -> None:
    ended = [rank(n, PAST, at=(), exit_code=0) for n in (0, 2, 3)]
    verdict = explain(job(*ended, rank(1, PAST, at=IN_LOAD)), idle_s=IDLE_S)
    assert (verdict.kind, verdict.culprits, verdict.line) == ("c_call", (1,), 31)
    assert verdict.sentence == (
        "hang: 3 of 4 ranks have ended; rank 1 is at data.py:31 (load) for 300 s"
    )


def test_all_in_init_process_group_points_to_ranks_elsewhere() -> None:
    verdict = explain(job(*(rank(n, at=INIT, told={"groups": {}}) for n in (0, 1))), idle_s=IDLE_S)
    assert (verdict.kind, verdict.culprits) == ("init", ())
    assert "no rank is missing here" in verdict.sentence


def test_a_rank_without_the_group_that_others_wait_in_is_told_so() -> None:
    groups = {"0": ("default_pg", range(4)), "3": ("dp", range(4))}
    ranks = [rank(n, [entry(1, group=("3", "dp"))], told={"groups": groups}) for n in (0, 2, 3)]
    verdict = explain(job(*ranks, rank(1, PAST, at=IN_LOAD)), idle_s=IDLE_S)
    assert (verdict.kind, verdict.culprits) == ("no_group", (1,))
    assert verdict.note == "rank 1 has not made group dp"


def test_without_a_recorder_the_stacks_tell_who_is_where() -> None:
    ranks = [rank(n, has_record=False) for n in (0, 2, 3)]
    verdict = explain(job(*ranks, rank(1, at=IN_LOAD, has_record=False)), idle_s=IDLE_S)
    assert (verdict.culprits, verdict.op, verdict.line) == ((1,), "all_reduce", 31)
    assert verdict.sentence == (
        "hang: all_reduce waits for rank 1: 3 of 4 ranks called it at train.py:88 (all_reduce);"
        " rank 1 is at data.py:31 (load) for 300 s"
    )


def test_without_a_recorder_two_collectives_are_told_apart() -> None:
    other = ((C10D, 3, "barrier"), ("/me/train.py", 9, "main"))
    ranks = [rank(n, has_record=False) for n in (0, 2, 3)]
    verdict = explain(job(*ranks, rank(1, at=other, has_record=False)), idle_s=IDLE_S)
    assert (verdict.kind, verdict.culprits, verdict.line) == ("mismatch", (1,), 9)


def test_a_collective_that_all_have_called_is_not_blamed_on_a_rank() -> None:
    verdict = explain(job(*waiting(0, 1, 2, 3)), idle_s=IDLE_S)
    assert (verdict.kind, verdict.culprits) == ("unclear", ())
    assert "all 4 ranks called it at train.py:88" in verdict.sentence
    assert "has not ended for 300 s" in verdict.sentence


@pytest.mark.parametrize(
    ("known", "kind"), [({"state": "T"}, "stopped"), ({"exit_code": 0}, "ended")]
)
def test_a_rank_that_has_called_it_and_is_gone_since_is_named(
    known: dict[str, Any], kind: str
) -> None:
    verdict = explain(job(*waiting(0, 1, 2), *waiting(3, **known)), idle_s=IDLE_S)
    assert (verdict.kind, verdict.culprits) == (kind, (3,))


def test_a_call_that_one_rank_alone_has_made_may_be_under_a_condition() -> None:
    ended = [rank(n, PAST, at=(), exit_code=0) for n in (1, 2, 3)]
    verdict = explain(job(*waiting(0, op="barrier"), *ended), idle_s=IDLE_S)
    assert verdict.culprits == (1, 2, 3)
    assert verdict.note == "only rank 0 called barrier: is the call under a condition?"
    assert "ranks 1-3 have ended with exit code 0" in verdict.sentence


@pytest.mark.parametrize("codes", [(-6, -6), (1, -6), (-6, 0)])
def test_ranks_that_gloo_aborted_are_told_of_the_mismatch_of_their_last_common_call(
    codes: tuple[int, int],
) -> None:
    ranks = (
        rank(0, done_up_to(7, sizes=(4, 4)), at=(), exit_code=codes[0], told={"world": 2}),
        rank(1, done_up_to(7, sizes=(4, 5)), at=(), exit_code=codes[1], told={"world": 2}),
    )
    verdict = explain(job(*ranks), idle_s=None)
    assert (verdict.kind, verdict.culprits, verdict.is_certain) == ("mismatch", (0, 1), False)
    assert verdict.sentence.startswith("mismatch: ranks disagree in call #7 of the default group: ")
    assert "rank 1 called all_reduce (float32 [4, 5])" in verdict.sentence


def test_the_host_is_named_where_there_are_several() -> None:
    far = rank(5, PAST, at=IN_LOAD, host="node1", told={"world": 6})
    ranks = waiting(0, 1, 2, 3, 4, told={"world": 6})
    verdict = explain(job(*ranks, far), idle_s=None)
    assert "5 of 6 ranks called it" in verdict.sentence
    assert "rank 5 on node1 is at data.py:31 (load) for 312 s" in verdict.sentence


def test_a_healthy_job_and_none_at_all_are_nothing() -> None:
    assert explain({}, idle_s=None).kind == "none"
    healthy = [rank(n, PAST, at=IN_LOAD, state="R") for n in range(4)]
    assert explain(job(*healthy), idle_s=None).kind == "none"
    just_now = [rank(n, [*PAST, entry(7, ago_s=0.01)], state="R") for n in range(4)]
    assert explain(job(*just_now), idle_s=None).kind == "none"


def test_a_job_that_makes_no_progress_without_collectives_is_told_where_it_is() -> None:
    verdict = explain(job(*(rank(n, PAST, at=IN_LOAD) for n in range(4))), idle_s=IDLE_S)
    assert (verdict.kind, verdict.line) == ("idle", 31)
    assert "ranks 0-3 are at data.py:31 (load)" in verdict.sentence


@pytest.mark.parametrize("world", [64, 1000])
def test_many_ranks_are_folded_into_a_short_sentence(world: int) -> None:
    others = [n for n in range(world) if n % 7 and n != 5]
    told = {"world": world}
    ranks = [rank(n, [entry(7)], told=told) for n in others]
    late = [rank(n, at=IN_LOAD, told=told) for n in range(0, world, 7)]
    verdict = explain(job(*ranks, *late, rank(5, [entry(7)], told=told)), idle_s=IDLE_S)
    assert len(verdict.culprits) == len(late)
    assert len(verdict.sentence) < 600


def test_names_with_control_characters_and_markup_stay_text() -> None:
    name = "\x1b[31m[bold]dp\n\ud800"
    groups = {"3": (name, range(2))}
    at = (("/me/\x1b[2J\n.py", 3, "f\r"), *IN_COLLECTIVE)
    pending = rank(0, [entry(1, group=("3", name))], told={"groups": groups})
    verdict = explain(job(pending, rank(1, at=at, told={"groups": groups})), idle_s=IDLE_S)
    assert verdict.culprits == (1,)
    assert all(char.isprintable() for char in verdict.sentence + verdict.note)
    assert "[bold]dp" in verdict.sentence


def test_a_verdict_comes_back_from_its_json_and_nothing_else_does() -> None:
    made = explain(job(*waiting(0, 2, 3), rank(1, PAST, at=IN_LOAD)), idle_s=IDLE_S)
    told = json.loads(json.dumps(made.to_json()))
    assert verdict_of(told) == made
    for name in ("kind", "sentence", "is_certain", "file", "line", "seq", "note", "waited_s"):
        assert verdict_of(told | {name: [name]}) is None
    assert verdict_of({}) is None
    assert verdict_of([told]) is None


def raised(**known: Any) -> Witness:
    """Return rank 1 in a barrier that its `finally` block calls."""
    found = rank(1, [*PAST, entry(7, "barrier")], **known)
    assert found.record
    error = Handled("ValueError", "loss is NaN", "/me/train.py", 41)
    return replace(found, record=replace(found.record, handled=error))


def test_a_rank_that_hangs_after_an_exception_is_told_with_it() -> None:
    verdict = explain(job(*waiting(0, told={"world": 2}), raised(told={"world": 2})), idle_s=IDLE_S)
    assert (verdict.kind, verdict.culprits, verdict.is_certain) == ("mismatch", (1,), True)
    assert verdict.sentence.endswith(
        "; rank 1 has raised ValueError: loss is NaN at train.py:41,"
        " and is in its finally or except block"
    )
    assert "cannot tell" not in verdict.sentence and verdict.line == 41


def test_what_all_ranks_have_raised_tells_nothing() -> None:
    both = [replace(raised(told={"world": 2}), rank=n) for n in (0, 1)]
    assert "has raised" not in explain(job(*both), idle_s=IDLE_S).sentence

"""Which rank the others wait for, and where it is: a job a case."""

from __future__ import annotations

from typing import Any

import pytest

from distrun.diagnose.hang.evidence import Witness
from distrun.diagnose.hang.verdict import explain
from tests.unit.diagnose.hang.jobs import (
    C10D,
    IN_LOAD,
    LOADER,
    PAST,
    QUEUE,
    SUBPROCESS,
    THREADING,
    Where,
    entry,
    job,
    rank,
    waiting,
)

IDLE_S = 300.0
IN_LOADER: tuple[Where, ...] = ((QUEUE, 9, "get"), (LOADER, 8, "_next_data"), *IN_LOAD[1:])


@pytest.mark.parametrize(
    ("known", "kind", "said"),
    [
        ({}, "c_call", "rank 1 is at data.py:31 (load) for 300 s"),
        ({"told": {"opcode": "JUMP_BACKWARD"}}, "python", "rank 1 is at data.py:31 (load)"),
        ({"is_busy": True, "state": "R"}, "loop", "rank 1 runs on the same lines all the time at"),
        ({"at": ((THREADING, 3, "wait"), *IN_LOAD)}, "lock", "rank 1 waits for a lock or a thread"),
        ({"told": {"opcode": "BEFORE_WITH"}}, "lock", "rank 1 waits for a lock (with) at data.py"),
        ({"at": IN_LOADER}, "input", "rank 1 waits for the DataLoader at train.py:80 (main)"),
        ({"at": ((QUEUE, 9, "get"), *IN_LOAD)}, "input", "rank 1 waits for data from a queue"),
        ({"at": ((SUBPROCESS, 3, "_wait"), *IN_LOAD)}, "child", "waits for a child process"),
        ({"state": "D"}, "disk", "rank 1 waits for a disk or a network file system (state D)"),
        ({"age_s": 30.0}, "gil", "rank 1 is in an extension that holds the GIL at data.py:31"),
        ({"age_s": 30.0, "state": "R"}, "gil", "rank 1 is in an extension that holds the GIL"),
        ({"state": "T"}, "stopped", "rank 1 is stopped (SIGSTOP or Ctrl-Z) at data.py:31 (load)"),
        ({"state": "t"}, "debugger", "rank 1 is held by a debugger at data.py:31 (load)"),
        ({"state": "", "at": ()}, "unreachable", "rank 1 is on a node that does not answer"),
        ({"exit_code": 0, "at": ()}, "ended", "rank 1 has ended with exit code 0"),
        ({"exit_code": 3, "at": ()}, "ended", "rank 1 has ended with exit code 3"),
        ({"exit_code": -9, "at": ()}, "ended", "rank 1 was killed by SIGKILL"),
        ({"state": "Z", "at": ()}, "ended", "rank 1 has ended"),
    ],
)
def test_the_rank_outside_of_the_collective_is_named_with_what_it_does(
    known: dict[str, Any], kind: str, said: str
) -> None:
    culprit = rank(1, PAST, **{"at": IN_LOAD, **known})
    verdict = explain(job(*waiting(0, 2, 3), culprit), idle_s=IDLE_S)
    assert verdict.sentence.startswith(
        "hang: all_reduce #7 of the default group (float32 [4, 4]) waits for rank 1:"
        " 3 of 4 ranks called it at train.py:88 (all_reduce); "
    )
    assert said in verdict.sentence
    assert (verdict.kind, verdict.culprits, verdict.waiting) == (kind, (1,), (0, 2, 3))
    assert (verdict.op, verdict.seq, verdict.group) == ("all_reduce", 7, "default_pg")
    assert verdict.is_certain
    assert len(verdict.sentence) < 400


@pytest.mark.parametrize(
    ("others", "parts"),
    [
        ({"op": "broadcast"}, ("all_reduce (float32 [4, 4])", "broadcast (float32 [4, 4])")),
        ({"sizes": (4, 5)}, ("all_reduce (float32 [4, 4])", "all_reduce (float32 [4, 5])")),
        ({"dtype": "Int"}, ("all_reduce (float32 [4, 4])", "all_reduce (int32 [4, 4])")),
        ({"op": "barrier"}, ("all_reduce (float32 [4, 4])", "barrier")),
    ],
)
def test_calls_that_differ_are_named_with_the_ranks_that_differ_from_the_majority(
    others: dict[str, Any], parts: tuple[str, str]
) -> None:
    odd = rank(1, [*PAST, entry(7, **others)])
    verdict = explain(job(*waiting(0, 2, 3), odd), idle_s=IDLE_S)
    assert verdict.sentence == (
        "hang: ranks disagree in call #7 of the default group:"
        f" ranks 0,2-3 called {parts[0]} at train.py:88 (all_reduce);"
        f" rank 1 called {parts[1]} at train.py:88 (all_reduce)"
    )
    assert (verdict.kind, verdict.culprits, verdict.is_certain) == ("mismatch", (1,), True)


def test_of_two_ranks_that_disagree_neither_is_blamed() -> None:
    told = {"world": 2}
    ranks = rank(0, [entry(7)], told=told), rank(1, [entry(7, "broadcast")], told=told)
    verdict = explain(job(*ranks), idle_s=IDLE_S)
    assert (verdict.culprits, verdict.is_certain) == ((0, 1), False)
    assert verdict.sentence.endswith("; no majority: cannot tell which is wrong")


def test_two_calls_in_opposite_order_are_called_swapped() -> None:
    told = {"world": 2}
    ranks = (
        rank(0, [*PAST, entry(7), entry(8, "broadcast")], told=told),
        rank(1, [*PAST, entry(7, "broadcast"), entry(8)], told=told),
    )
    verdict = explain(job(*ranks), idle_s=IDLE_S)
    assert verdict.kind == "order"
    assert "calls in swapped order in call #7 of the default group: rank 0 " in verdict.sentence


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [("src", (0, 1, 0, 0), "(src=1)"), ("op", ("SUM", "MAX", "SUM", "SUM"), "(op=MAX)")],
)
def test_another_root_or_operation_is_seen_in_the_arguments_of_the_call(
    name: str, values: tuple[int | str, ...], said: str
) -> None:
    calls = [
        {"function": "broadcast", "group": "0", "arguments": {name: value}} for value in values
    ]
    ranks = [rank(n, [entry(7, "broadcast")], told={"call": c}) for n, c in enumerate(calls)]
    verdict = explain(job(*ranks), idle_s=IDLE_S)
    assert (verdict.kind, verdict.culprits) == ("mismatch", (1,))
    assert f"rank 1 called broadcast {said} at train.py:88" in verdict.sentence


def test_another_root_is_seen_though_other_ranks_have_gone_on_to_the_next_call() -> None:
    def stuck(number: int) -> Witness:
        call = {"function": "broadcast", "group": "0", "arguments": {"src": number}}
        return rank(number, [*PAST, entry(7, "broadcast")], told={"call": call})

    gone_on = [*PAST, entry(7, "broadcast", done=True), entry(8)]
    ranks = stuck(0), stuck(1), rank(2, gone_on), rank(3, gone_on)
    verdict = explain(job(*ranks), idle_s=IDLE_S)
    assert (verdict.kind, verdict.culprits, verdict.is_certain) == ("mismatch", (0, 1), False)
    assert "rank 0 called broadcast (src=0) at " in verdict.sentence
    assert verdict.note == (
        "ranks 2-3 wait in all_reduce #8 of the default group at train.py:88 (all_reduce) for"
        " ranks 0-1"
    )


@pytest.mark.parametrize("op", ["scatter", "gather", "all_to_all"])
def test_tensors_that_may_differ_between_ranks_are_no_mismatch(op: str) -> None:
    own: dict[str, Any] = {"input_sizes": [[9]], "output_sizes": [[4, 4]]}
    if op != "scatter":
        own = {"input_sizes": [[4, 4]], "output_sizes": [[9]]}
    root, late = rank(0, [entry(7, op, **own)]), rank(1, at=IN_LOAD)
    verdict = explain(job(root, *waiting(2, 3, op=op), late), idle_s=IDLE_S)
    assert (verdict.culprits, verdict.op) == ((1,), op)


GROUPS = {"0": ("default_pg", range(2)), "1": ("dp", [0, 1]), "2": ("tp", [0, 1])}


def test_a_deadlock_of_two_groups_is_drawn() -> None:
    ranks = (
        rank(0, [entry(3, group=("1", "dp"))], told={"groups": GROUPS}),
        rank(1, [entry(2, "all_gather", group=("2", "tp"))], told={"groups": GROUPS}),
    )
    verdict = explain(job(*ranks), idle_s=IDLE_S)
    assert (verdict.kind, verdict.cycle, verdict.is_certain) == ("cycle", (0, 1), False)
    assert "rank 0 -> (dp) rank 1 -> (tp) rank 0; " in verdict.sentence
    assert "rank 0 is in all_reduce #3 of group dp at train.py:88" in verdict.sentence
    assert "rank 1 is in all_gather #2 of group tp at train.py:88" in verdict.sentence


def test_of_two_groups_in_opposite_order_the_fewer_ranks_are_wrong() -> None:
    groups = {"1": ("data", range(4)), "2": ("model", range(4))}
    ranks = [
        rank(n, [entry(1, group=("2", "model") if n == 2 else ("1", "data"))],
             told={"groups": groups})
        for n in range(4)
    ]  # fmt: skip
    verdict = explain(job(*ranks), idle_s=IDLE_S)
    assert (verdict.kind, verdict.culprits, verdict.is_certain) == ("cycle", (2,), True)
    assert (verdict.group, verdict.op, verdict.seq) == ("data", "all_reduce", 1)
    assert "ranks 0-1,3 are in all_reduce #1 of group data at train.py:88" in verdict.sentence


def test_a_rank_that_waits_in_another_group_is_not_blamed_for_it() -> None:
    both = {"0": ("default_pg", range(4)), "5": ("tp", (2, 3))}
    ranks = (
        *waiting(0, 1),
        rank(2, [*PAST, entry(1, "all_gather", group=("5", "tp"))], told={"groups": both}),
        rank(3, PAST, at=IN_LOAD, told={"groups": both}),
    )
    verdict = explain(job(*ranks), idle_s=IDLE_S)
    assert (verdict.culprits, verdict.op) == ((3,), "all_reduce")
    assert verdict.note == (
        "rank 2 waits in all_gather #1 of group tp at train.py:88 (all_reduce) for rank 3"
    )


def in_transfer(number: int, function: str, world: int = 2, **arguments: int) -> Witness:
    call = {"function": function, "group": "0", "arguments": arguments}
    at = ((C10D, 9, function), ("/me/pipe.py", 5, "main"))
    return rank(number, PAST, at=at, told={"call": call, "world": world})


@pytest.mark.parametrize(("op", "missing"), [("recv", "send"), ("send", "recv")])
def test_a_receive_without_a_send_and_a_send_without_a_receive_name_the_other_rank(
    op: str, missing: str
) -> None:
    argument = {"src" if op == "recv" else "dst": 0}
    ranks = rank(0, PAST, at=IN_LOAD, told={"world": 2}), in_transfer(1, op, **argument)
    verdict = explain(job(*ranks), idle_s=IDLE_S)
    assert (verdict.kind, verdict.culprits, verdict.op) == ("p2p", (0,), op)
    assert f" rank 0 waits for a {missing}: rank 1 called it at pipe.py:5 ({op})" in (
        verdict.sentence
    )
    assert "rank 0 is at data.py:31 (load)" in verdict.sentence


def test_a_receive_while_the_others_are_in_a_collective_is_the_receivers_fault() -> None:
    verdict = explain(job(*waiting(0, 2, 3), in_transfer(1, "recv", 4, src=0)), idle_s=IDLE_S)
    assert (verdict.kind, verdict.culprits, verdict.is_certain) == ("p2p", (1,), True)
    assert "a recv without a send: rank 0 -> (default) rank 1 -> (recv) rank 0" in verdict.sentence


def test_two_ranks_that_receive_from_each_other_are_a_cycle() -> None:
    ranks = in_transfer(0, "recv", src=1), in_transfer(1, "recv", src=0)
    verdict = explain(job(*ranks), idle_s=IDLE_S)
    assert (verdict.kind, verdict.cycle) == ("cycle", (0, 1))
    assert "rank 0 -> (recv) rank 1 -> (recv) rank 0" in verdict.sentence


def test_a_send_that_is_met_is_no_wait_and_other_tags_are_one() -> None:
    met = explain(job(in_transfer(0, "send", dst=1), in_transfer(1, "recv", src=0)), idle_s=None)
    assert met.kind == "none"
    ranks = in_transfer(0, "send", dst=1, tag=1), in_transfer(1, "recv", src=0, tag=2)
    assert explain(job(*ranks), idle_s=IDLE_S).kind == "cycle"

"""Which kind of failure has ended an attempt."""

from __future__ import annotations

from typing import Any

import pytest

from distrun import failures
from distrun.diagnose.failures import Failure, of_rank, repeated
from distrun.diagnose.verdict import RankEnd, judge

WHY = "rank 1 on b failed first"


def end(**fields: Any) -> RankEnd:
    told = {"rank": 1, "node": 7, "host": "b", "exit_code": 1, "at": 1.0}
    return RankEnd(**{**told, **fields})


def report(kind: str, message: str) -> dict[str, Any]:
    told = {"type": kind, "message": message, "file": "train.py", "line": 3, "source": "step()"}
    return {**told, "traceback": "", "carriers": [], "threads": [], "monotonic": 1.0}


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"report": report("ValueError", "no")}, "crash"),
        ({"exit_code": -11}, "crash"),
        ({"exit_code": -9}, "crash"),
        ({"exit_code": -9, "out_of_memory": "the machine had no memory left"}, "host-memory"),
        ({"report": report("OutOfMemoryError", "CUDA out of memory. Tried to …")}, "gpu-memory"),
        ({"report": report("RuntimeError", "CUDA out of memory")}, "gpu-memory"),
        ({"report": report("AcceleratorError", "CUDA error: uncorrectable ECC error …")}, "gpu"),
        ({"exit_code": 1, "last_words": "NVRM: GPU has fallen off the bus"}, "gpu"),
        ({"report": report("OSError", "[Errno 28] No space left on device: 'a'")}, "disk"),
        ({"report": report("ValueError", "the disk is a quota of space")}, "crash"),
    ],
)
def test_the_error_of_the_first_rank_tells_the_kind(fields: dict[str, Any], kind: str) -> None:
    first = end(**fields)
    verdict = judge([first])
    assert verdict is not None
    assert of_rank(verdict, first, WHY) == Failure(kind, 7, WHY)


CRASH = Failure(failures.CRASH, 1, WHY)
SAME = [end(rank=rank, report=report("ValueError", "no")) for rank in (0, 1)]
NOTHING: dict[str, Any] = {
    "world_size": 2,
    "nnodes": 2,
    "progressed": False,
    "without_steps": False,
}
OTHERS = [end(rank=0, report=report("ValueError", "no")), end(rank=1)]


@pytest.mark.parametrize(
    ("before", "ends", "history", "kind"),
    [
        ([], [OTHERS], {}, "crash"),
        ([CRASH], [OTHERS, OTHERS], {}, "bad-node"),
        ([CRASH], [OTHERS, OTHERS], {"nnodes": 1}, "crash"),
        ([Failure(failures.CRASH, 0, WHY)], [OTHERS, OTHERS], {}, "crash"),
        ([Failure(failures.NODE, 1, WHY)], [OTHERS, OTHERS], {}, "crash"),
        ([CRASH], [SAME, SAME], {}, "code"),
        ([CRASH], [SAME, SAME], {"progressed": True, "nnodes": 1}, "crash"),
        ([CRASH], [OTHERS, OTHERS], {"without_steps": True}, "code"),
    ],
)
def test_what_is_repeated_is_a_bug_or_a_bad_node(
    before: list[Failure], ends: list[list[RankEnd]], history: dict[str, Any], kind: str
) -> None:
    found = repeated(CRASH, ends, before, **{**NOTHING, **history})
    assert found.kind == kind
    assert found.suspect == (None if kind == "code" else 1)


def test_only_a_crash_is_judged_by_what_came_before() -> None:
    lost = Failure(failures.NODE, 1, WHY)
    history = {**NOTHING, "without_steps": True}
    assert repeated(lost, [SAME, SAME], [CRASH], **history) == lost


def test_every_kind_has_an_action_that_it_allows() -> None:
    for kind in failures.KINDS.values():
        assert kind.default in kind.actions
        assert set(kind.actions) <= set(failures.ACTIONS)
    assert failures.chosen({"crash": "stop"}) == {
        **{name: kind.default for name, kind in failures.KINDS.items()},
        "crash": "stop",
    }

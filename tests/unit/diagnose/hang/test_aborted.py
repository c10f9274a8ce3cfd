"""Which rank differs when gloo has aborted one: from the records of the others."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from distrun.diagnose.hang.aborted import explain_abort, is_abort
from distrun.diagnose.hang.evidence import Witness
from tests.unit.diagnose.hang.jobs import done_up_to, entry, job, rank

PAST = done_up_to(6)


def told(number: int, *sizes: int, op: str = "all_reduce", dtype: str = "Float") -> Witness:
    """Return a rank that has told its last calls when it raised."""
    return rank(number, [*PAST, entry(7, op, sizes=sizes, dtype=dtype)])


def aborted(number: int) -> Witness:
    """Return a rank of which only the counts of an earlier look and its last stack are known."""
    return rank(number, exit_code=-6)


@pytest.mark.parametrize(
    ("witnesses", "aborts", "culprits", "says"),
    [
        # The larger tensor is not aborted, whoever receives a part of it is.
        ([told(0, 4), told(1, 4), told(3, 6)], [2], (3,),
         "ranks 0-2 called all_reduce (float32 [4]) at train.py:88 (all_reduce); "
         "rank 3 called all_reduce (float32 [6]) at train.py:88 (all_reduce)"),
        ([told(0, 9), told(3, 4)], [1, 2], (0,), "ranks 1-3 called all_reduce (float32 [4])"),
        ([told(0, 4), told(1, 4), told(3, 4, dtype="Double")], [2], (3,),
         "rank 3 called all_reduce (float64 [4])"),
        # All others agree: the aborted one differs.
        ([told(0, 4), told(2, 4), told(3, 4)], [1], (1,),
         "ranks 0,2-3 called all_reduce (float32 [4]) at train.py:88 (all_reduce); "
         "rank 1 came with fewer bytes at train.py:88 (all_reduce)"),
        ([told(0, 4, op="broadcast"), told(2, 4, op="broadcast"), told(3, 4, op="broadcast")],
         [1], (1,), "call #7 of the default group, or the one before it"),
        # Other calls: sizes tell nothing, and three of four are a majority.
        ([told(0, 4), told(1, 4), told(3, 8, op="all_gather")], [2], (),
         "rank 2 left no record; no majority: cannot tell which is wrong"),
        # Two ranks never have a majority.
        ([told(0, 4)], [1], (), "no majority: cannot tell which is wrong"),
        ([told(0, 4), told(3, 4)], [1, 2], (), "no majority: cannot tell which is wrong"),
    ],
)  # fmt: skip
def test_the_ranks_that_left_a_record_tell_who_differs(
    witnesses: Sequence[Witness], aborts: Sequence[int], culprits: tuple[int, ...], says: str
) -> None:
    found = explain_abort(job(*witnesses, *map(aborted, aborts)), aborts)
    assert found is not None
    assert (found.kind, found.is_certain, found.seq) == ("mismatch", bool(culprits), 7)
    assert found.culprits == (culprits or tuple(range(len(witnesses) + len(aborts))))
    assert says in found.sentence


def test_a_rank_that_is_a_call_ahead_is_compared_by_the_earlier_call() -> None:
    source = rank(0, [*PAST, entry(7, "broadcast", sizes=[9]), entry(8, "broadcast", sizes=[9])])
    waits = rank(3, [*PAST, entry(7, "broadcast", sizes=[4]), entry(8, "broadcast", sizes=[9])])
    found = explain_abort(job(source, aborted(1), aborted(2), waits), [1, 2])
    assert found is not None
    assert (found.seq, found.culprits) == (7, (0,))


def test_without_any_record_nothing_is_said() -> None:
    assert explain_abort(job(aborted(0), aborted(1)), [0, 1]) is None
    assert explain_abort(job(rank(0, has_record=False), aborted(1)), [1]) is None


def test_the_abort_is_known_by_what_gloo_prints() -> None:
    said = "terminate called after throwing an instance of 'gloo::EnforceNotMet'\n  what():  [x] "
    assert is_abort(f"{said}op.preamble.length <= op.nbytes. 752 vs 500. Received")
    assert not is_abort(f"{said}nparts > 0")
    assert not is_abort("op.preamble.length <= op.nbytes")

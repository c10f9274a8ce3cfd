"""What counts of a rank that is slow to end: what it said itself, before it was told to stop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from distrun.agent.rank import Rank
from distrun.signals import STACKS
from distrun.streams import NOTHING_HANDED

TERM, KILL, ABORT = int(signal.SIGTERM), int(signal.SIGKILL), int(signal.SIGABRT)
LEAVING = {"report": "leaving", "monotonic": 5.0}


def raised(kind: str) -> dict[str, Any]:
    return {"report": "error", "type": kind, "monotonic": 5.0}


@pytest.fixture
def rank() -> Iterator[Rank]:
    rank = Rank(0, apart=True)
    fds = rank.open(NOTHING_HANDED.handed_fds)
    yield rank
    for fd in fds:
        os.close(fd)
    rank.close()


@pytest.mark.parametrize(
    ("says", "told", "status", "code", "at"),
    [
        (None, [], 3 << 8, 3, 9.0),
        (None, [TERM], TERM, -TERM, 9.0),
        (LEAVING, [], 0, 0, 5.0),
        (LEAVING, [], 3 << 8, 3, 5.0),
        (LEAVING, [], ABORT, -ABORT, 9.0),  # a crash on the way down is its own
        (LEAVING, [TERM], ABORT, -ABORT, 9.0),
        (LEAVING, [TERM], TERM, 0, 5.0),
        (LEAVING, [TERM, KILL], KILL, 0, 5.0),
        (LEAVING, [TERM], KILL, -KILL, 9.0),  # the kernel's
        (raised("ValueError"), [], 1 << 8, 1, 5.0),
        (raised("ValueError"), [TERM], TERM, 1, 5.0),
        (raised("ValueError"), [TERM, KILL], KILL, 1, 5.0),
        (raised("KeyboardInterrupt"), [TERM], TERM, -signal.SIGINT, 5.0),
    ],
)
def test_a_rank_that_left_by_itself_keeps_its_own_ending(
    rank: Rank, says: dict[str, Any] | None, told: list[int], status: int, code: int, at: float
) -> None:
    if says:
        rank.take_leave(says)
    rank.told |= set(told)
    rank.status = status
    assert rank.exit_code == code
    assert rank.ended_at(9.0) == at


@pytest.mark.parametrize(
    ("step", "time_s", "is_kept"),
    [
        (3, 0.5, True),
        (10**400, 0.5, False),
        (True, 0.5, False),
        ("1", 0.5, False),
        (3, float("inf"), False),
        (3, float("nan"), False),
        (3, -1e300, False),
    ],
)
def test_a_report_whose_number_is_beyond_any_step_or_time_is_dropped(
    rank: Rank, step: Any, time_s: float, is_kept: bool
) -> None:
    told = {"report": "milestone", "what": "saved", "step": step, "time_s": time_s}
    os.write(rank._report_write, (json.dumps(told) + "\n").encode())
    assert rank.read_reports() == [told] * is_kept


def test_what_a_rank_says_after_it_was_told_to_stop_does_not_count(rank: Rank) -> None:
    rank.told.add(TERM)
    rank.take_leave(LEAVING)
    rank.status = TERM
    assert rank.exit_code == -TERM
    assert not rank.left_by_itself


HANDLES = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); "


@pytest.mark.parametrize(
    ("report", "code", "status"),
    [
        (None, "", -TERM),
        (LEAVING, "", 5),  # exit handlers, destructors: it ends as it would
        (raised("ValueError") | {"threads": []}, "", 5),
        (raised("ValueError") | {"threads": ["monitor"]}, "", -TERM),  # it may have no end
        (LEAVING, HANDLES, 7),
    ],
)
def test_a_stop_does_not_cut_short_what_a_rank_does_last(
    rank: Rank, report: dict[str, Any] | None, code: str, status: int
) -> None:
    program = f"{code}print(1, flush=True); sys.stdin.read(); sys.exit(5)"
    with subprocess.Popen(
        [sys.executable, "-c", f"import sys; {program}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as child:
        assert child.stdout is not None and child.stdout.readline()
        rank.pid = child.pid
        if report:
            rank.take_leave(report)
        rank.ask_to_stop(TERM)
        if status == 5:
            assert not rank.told
            child.communicate()
        else:
            assert rank.told == {TERM}
        assert child.wait(20) == status


def test_the_code_of_a_rank_that_was_killed_on_its_way_out_is_not_known(rank: Rank) -> None:
    rank.take_leave(LEAVING)
    rank.told.add(KILL)
    rank.status = KILL
    assert (rank.exit_code, rank.code_known) == (0, False)


def test_a_request_for_stacks_that_ends_a_rank_on_its_way_out_is_no_crash(rank: Rank) -> None:
    rank.take_leave(LEAVING)
    rank.status = int(STACKS)
    assert rank.exit_code == 0


FRAME = b'  File "a.py", line 1 in f\n'


def test_the_stack_of_a_crash_is_still_there_at_the_end_when_it_was_asked_for_before(
    rank: Rank,
) -> None:
    os.write(rank._stacks_fd, b"Fatal Python error: Segmentation fault\n\n" + FRAME)
    assert "line 1 in f" in rank.read_stacks()
    assert "line 1 in f" in rank.read_stacks()


def test_a_stack_that_was_read_is_gone(rank: Rank) -> None:
    os.write(rank._stacks_fd, b"Current thread (most recent call first):\n" + FRAME)
    assert "line 1 in f" in rank.read_stacks()
    assert not rank.read_stacks()

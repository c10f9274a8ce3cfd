"""Who failed first, of what, and who only failed after it."""

from __future__ import annotations

import itertools
import json
import signal
from dataclasses import replace
from typing import Any

import pytest

from distrun.diagnose.verdict import RankEnd, cause, is_code_bug, judge, signal_name

PEER_GONE = "[../gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:4242"


def error(kind: str = "ValueError", message: str = "boom", line: int = 7) -> dict[str, Any]:
    return {
        "type": kind,
        "message": message,
        "traceback": f"Traceback …\n{kind}: {message}\n",
        "file": "/home/me/train.py",
        "line": line,
        "source": "raise ValueError('boom')",
    }


def end(
    rank: int, at: float, exit_code: int = 1, report: dict[str, Any] | None = None, **more: Any
) -> RankEnd:
    return RankEnd(rank, rank // 2, f"node{rank // 2}", exit_code, at, report=report, **more)


def victim(rank: int, at: float) -> RankEnd:
    return end(rank, at, report=error("RuntimeError", PEER_GONE))


def test_nobody_failed_and_nothing_is_said() -> None:
    assert judge([]) is None
    assert judge([end(0, 1.0, 0), end(1, 2.0, 0)]) is None


def test_the_earliest_failure_is_first_in_whatever_order_the_ends_came() -> None:
    ends = [end(0, 1.0, 0), end(1, 1.3, 3), end(2, 1.2, 5), end(3, 1.4, 7)]
    for order in itertools.permutations(ends):
        verdict = judge(order)
        assert verdict is not None
        assert (verdict.rank, verdict.node, verdict.host) == (2, 1, "node1")
        assert (verdict.exit_code, verdict.cause) == (5, "exited with 5")
        assert (verdict.others, verdict.same, verdict.within_ms) == (2, 0, 200.0)
        assert verdict.note == ""


@pytest.mark.parametrize(
    "words",
    [
        PEER_GONE,
        "Connection reset by peer",
        "[Errno 32] Broken pipe",
        "Application timeout caused pair closure",
        "Socket Timeout: connection was likely closed. Did the remote server shutdown?",
        "recvValue failed on SocketImpl(fd=3)",
        "recvValueWithTimeout failed on SocketImpl(fd=3)",
        "sendBytes failed on SocketImpl(fd=3)",
        "NCCL error: ncclRemoteError: remote process exited or there was a network error",
        "NCCL communicator was aborted on rank 1",
        "Gloo connectFullMesh failed with timeout",
        "failed to recv, got 0 bytes",
    ],
)
def test_a_rank_that_only_says_that_a_peer_is_gone_is_not_blamed(words: str) -> None:
    early = end(0, 1.0, report=error("RuntimeError", words))
    verdict = judge([early, end(3, 1.1, -signal.SIGSEGV)])
    assert verdict is not None
    assert (verdict.rank, verdict.cause, verdict.exit_code) == (3, "killed by SIGSEGV", 139)


def test_the_time_to_the_last_one_is_never_below_0() -> None:
    verdict = judge([victim(0, 1.0), end(1, 1.1, 3)])
    assert verdict is not None
    assert (verdict.rank, verdict.others, verdict.within_ms) == (1, 1, 0.0)


def test_a_rank_that_failed_after_the_stop_is_not_blamed() -> None:
    told = end(0, 1.0, -signal.SIGTERM, after_stop=True)
    verdict = judge([told, end(1, 1.1, 3)])
    assert verdict is not None
    assert verdict.rank == 1


def test_if_all_are_victims_the_earliest_is_named_with_a_note() -> None:
    verdict = judge([victim(1, 2.0), victim(0, 1.0)])
    assert verdict is not None
    assert verdict.rank == 0
    assert verdict.note == "it only reports that a peer was lost; no rank reported another error"


def test_a_rank_that_left_early_with_0_is_named_when_the_others_miss_it() -> None:
    verdict = judge([victim(0, 2.0), victim(1, 2.1), end(2, 1.9, 0), end(3, 5.0, 0)])
    assert verdict is not None
    assert verdict.rank == 0
    assert verdict.note == "rank 2 had ended with 0 while others still waited"
    assert verdict.early == (2,)


def test_ties_are_told_as_not_sure() -> None:
    verdict = judge([end(0, 1.0004, 3), end(1, 1.0, 5), victim(2, 1.0001), end(3, 1.5, 3)])
    assert verdict is not None
    assert verdict.rank == 1
    assert verdict.note == "rank 0 failed within 1 ms: the order is uncertain"


def test_sigkill_is_told_to_come_from_outside() -> None:
    verdict = judge([end(0, 1.0, -signal.SIGKILL)])
    assert verdict is not None
    assert (verdict.exit_code, verdict.cause) == (137, "killed by SIGKILL")
    assert "out of memory" in verdict.note


def test_an_exception_comes_with_its_traceback_and_place() -> None:
    same = [end(rank, 1.0 + rank, report=error()) for rank in range(3)]
    verdict = judge([*same, end(3, 9.0, report=error(line=8)), end(4, 9.0, 9)])
    assert verdict is not None
    assert verdict.cause == "ValueError: boom"
    assert (verdict.file, verdict.line) == ("/home/me/train.py", 7)
    assert verdict.source == "raise ValueError('boom')"
    assert verdict.traceback.endswith("ValueError: boom\n")
    assert (verdict.others, verdict.same, verdict.within_ms) == (4, 2, 8000.0)
    assert json.loads(json.dumps(verdict.to_json()))["cause"] == "ValueError: boom"


def test_a_crash_without_words_is_placed_by_the_users_own_frame() -> None:
    stacks = (
        "Fatal Python error: Segmentation fault\n\n"
        "Current thread 0x1 (most recent call first):\n"
        '  File "/venv/lib/python3.11/ctypes/__init__.py", line 519 in string_at\n'
        '  File "/venv/lib/python3.11/site-packages/torch/x.py", line 5 in f\n'
        '  File "/home/my me/train.py", line 12 in main\n'
        '  File "/home/my me/train.py", line 20 in <module>\n'
    )
    verdict = judge([end(0, 1.0, -signal.SIGSEGV, stacks=stacks)])
    assert verdict is not None
    assert (verdict.file, verdict.line, verdict.source) == ("/home/my me/train.py", 12, "")


def test_a_rank_without_an_exception_is_quoted_with_the_last_it_printed() -> None:
    printed = "step 1\n\nstep 2\r\nbar 10%\rbar 20%\nterminate called\n  what():  8 vs 4\n"
    silent = RankEnd(0, 0, "node0", -signal.SIGABRT, 1.0, last_words=printed)
    verdict = judge([silent])
    assert verdict is not None
    assert verdict.last_words == "bar 10%\nbar 20%\nterminate called\n  what():  8 vs 4"
    spoken = judge([replace(silent, exit_code=1, report=error())])
    assert spoken is not None
    assert spoken.last_words == ""


def test_who_ended_the_same_way_speaks_for_a_rank_that_printed_nothing() -> None:
    mute = RankEnd(1, 0, "node0", 2, 1.0, last_words=" \n")
    other = RankEnd(0, 0, "node0", 7, 1.01, last_words="seven")
    told = RankEnd(3, 0, "node0", -15, 1.3, last_words="terminated", after_stop=True)
    speaker = RankEnd(2, 0, "node0", 2, 1.02, last_words="error: --lr must be at least 0")
    verdict = judge([other, mute, told, speaker])
    assert verdict is not None
    assert (verdict.rank, verdict.last_words_of) == (1, 2)
    assert verdict.last_words == "error: --lr must be at least 0"
    alone = judge([other, mute, told])
    assert alone is not None
    assert (alone.last_words, alone.last_words_of) == ("", 1)


@pytest.mark.parametrize(
    ("exit_code", "report", "said"),
    [
        (1, error(), "ValueError: boom"),
        (1, error("KeyError", "'a'\nand more"), "KeyError: 'a'"),
        (1, error("AssertionError", ""), "AssertionError"),
        (1, error("AssertionError", " \n "), "AssertionError"),
        (7, None, "exited with 7"),
        (-11, None, "killed by SIGSEGV"),
        (-6, None, "killed by SIGABRT"),
        (-64, None, "killed by SIGRTMAX"),
        (-45, None, "killed by signal 45"),
    ],
)
def test_the_cause_is_one_line(exit_code: int, report: dict[str, Any] | None, said: str) -> None:
    assert cause(end(0, 1.0, exit_code, report)) == said


def test_signals_have_names() -> None:
    assert [signal_name(9), signal_name(15), signal_name(99)] == ["SIGKILL", "SIGTERM", "signal 99"]


# --- worth a restart? ------------------------------------------------------------------------


def attempt(*reports: dict[str, Any] | None) -> list[RankEnd]:
    return [end(rank, 1.0, report=report) for rank, report in enumerate(reports)]


@pytest.mark.parametrize(
    ("attempts", "bug"),
    [
        ([attempt(error(), error())], False),
        ([attempt(error(), error()), attempt(error(), error())], True),
        ([attempt(None, None), attempt(error(), error()), attempt(error(), error())], True),
        ([attempt(error(), error()), attempt(error(), None)], False),
        ([attempt(error(), None), attempt(error(), error())], False),
        ([attempt(error(), error()), attempt(error(line=8), error(line=8))], False),
        ([attempt(error(), error("KeyError")), attempt(error(), error("KeyError"))], False),
        ([attempt(error()), attempt(error())], False),
        ([attempt(None, None), attempt(None, None)], False),
        ([attempt(error(message="a"), error()), attempt(error(message="b"), error())], True),
        ([attempt(error("RuntimeError"), error("RuntimeError", PEER_GONE))] * 2, False),
    ],
)
def test_a_code_bug_is_the_same_error_at_the_same_line_on_every_rank_twice(
    attempts: list[list[RankEnd]], bug: bool
) -> None:
    assert is_code_bug(attempts, world_size=2) is bug


def test_a_lost_peer_at_the_same_line_is_not_the_same_error() -> None:
    first = end(1, 1.0, report=error("RuntimeError", "DataLoader worker exited"))
    verdict = judge([first, victim(0, 1.2), victim(2, 1.3)])
    assert verdict is not None
    assert (verdict.rank, verdict.others, verdict.same) == (1, 2, 0)


def test_ranks_that_were_stopped_have_not_failed_and_those_with_an_error_have() -> None:
    stopped = [end(rank, 3.0, -signal.SIGTERM, after_stop=True) for rank in (0, 2)]
    verdict = judge([end(1, 1.0, report=error()), *stopped])
    assert verdict is not None
    assert (verdict.others, verdict.within_ms) == (0, 0.0)
    verdict = judge(
        [end(1, 1.0, report=error()), *stopped, end(3, 1.5, 1, error(), after_stop=True)]
    )
    assert verdict is not None
    assert (verdict.others, verdict.within_ms) == (1, 500.0)

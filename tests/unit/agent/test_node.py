"""The agent's loop between a supervisor, a forkserver and ranks that the test plays."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from distrun.agent import node
from distrun.env import TAG
from distrun.signals import STACKS
from tests.unit.agent.peer import Peer, PlayedRank
from tests.unit.echo import Echo

TERM = int(signal.SIGTERM)
LINUX_ONLY = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Peer]:
    monkeypatch.setenv(TAG, "unit-test/0")
    peer = Peer()
    peer.turn()
    yield peer
    peer.close()


def test_a_parser_that_exits_is_told_as_the_end_of_the_engine(peer: Peer) -> None:
    order = {"arguments": ["--no-such-option", "train.py"], "restarts": 0, "max_restarts": 0}
    peer.node._engine(order)
    (event,) = peer.said()
    assert (event["event"], event["type"]) == ("engine_failed", "SystemExit")


def test_a_beat_in_the_middle_of_a_command_does_not_matter(peer: Peer) -> None:
    peer.says(b'{"comm\0and": "exit"}\0\n\0{"command": "kill"')
    assert peer.channel.commands() == [{"command": "exit"}]
    peer.says(b"}\n")
    assert peer.channel.commands() == [{"command": "kill"}]


def test_requests_reach_the_forkserver_one_by_one(peer: Peer) -> None:
    fds = [os.open(os.devnull, os.O_RDONLY) for _ in range(10)]
    peer.forks.begin({"A": "1"})
    peer.forks.ask({"RANK": "0"}, ["python"], fds[:5])
    peer.forks.ask({"RANK": "1"}, ["python"], fds[5:])
    for answer in (b'{"taken": true}\n', b'{"pid": 7}\n{"ended": 7, "status": 0}\n', b"\n"):
        data, passed, *_ = socket.recv_fds(peer.forkserver, 1 << 16, 10)
        assert data.count(b"\n") == 1
        for fd in passed:
            os.close(fd)
        peer.forkserver.sendall(answer)
        replies = peer.forks.read()
        if answer != b"\n":
            assert replies
    peer.forkserver.sendall(b'{"failed": "no room"}\n')
    assert peer.forks.read() == [{"failed": "no room"}]
    peer.forkserver.close()
    assert peer.forks.read() is None


# --- ranks ------------------------------------------------------------------------------


def test_each_rank_gets_its_environment_and_is_told_with_its_pid(peer: Peer) -> None:
    peer.ask_for((4, 5))
    assert b'"common"' in peer.forkserver.recv(1 << 16)
    peer.answer(taken=True)
    ranks = [peer.fork() for _ in range(2)]
    assert [rank.environ["RANK"] for rank in ranks] == ["4", "5"]
    assert [rank.command for rank in ranks] == [["python", "0.py"], ["python", "1.py"]]
    assert os.read(ranks[0].stdin_fd, 1) == b"", "nobody types into it"
    stage, *started = peer.said()
    assert stage["stage"] == "starting its ranks"
    assert [(event["event"], event["rank"], event["pid"]) for event in started] == [
        ("rank_started", 4, ranks[0].process.pid),
        ("rank_started", 5, ranks[1].process.pid),
    ]


def test_all_that_a_rank_has_said_is_told_before_its_end(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node, "_METRICS_S", 1000.0)
    (rank,) = peer.start(0)
    rank.logs(1)
    peer.turn()
    assert peer.said() == [], "numbers wait for others"
    os.write(rank.stdout_fd, b"x" * (1 << 15))
    rank.logs(2)
    peer.end(rank)
    events = peer.said()
    order = ["output", "metrics", "metrics", "rank_ended", "node_succeeded"]
    assert [event["event"] for event in events] == order
    assert len(events[0]["data"]) == 1 << 15
    assert [event["step"] for event in events[1:3]] == [1, 2]


def test_numbers_go_on_their_way_after_a_moment_without_an_end(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node, "_METRICS_S", 0.0)
    (rank,) = peer.start(3)
    rank.logs(1)
    peer.turn()
    (event,) = peer.said()
    assert (event["event"], event["rank"], event["values"]) == ("metrics", 3, {"loss": 0.5})
    peer.turn()
    assert peer.said() == [], "once"


def test_a_node_succeeds_when_all_of_its_ranks_have_ended_with_0(peer: Peer) -> None:
    ranks = peer.start(0, 1)
    peer.end(ranks[1])
    assert peer.said_names() == ["rank_ended"]
    peer.end(ranks[0])
    assert peer.said_names() == ["rank_ended", "node_succeeded"]
    assert peer.node.wait()


def test_a_node_with_a_rank_that_failed_does_not(peer: Peer) -> None:
    ranks = peer.start(0, 1)
    os.write(ranks[0].stdout_fd, b"its last words")
    peer.end(ranks[0], status=3 << 8)
    peer.end(ranks[1])
    _, failed, ended = peer.said()
    assert (failed["exit_code"], failed["last_words"]) == (3, "its last words")
    assert (ended["exit_code"], ended["last_words"]) == (0, "")
    assert not peer.node.wait()


def test_the_end_of_a_process_that_is_no_rank_is_nothing(peer: Peer) -> None:
    peer.start(0)
    peer.answer(ended=1, status=0, monotonic=9.0)
    assert peer.said() == []


def test_a_rank_that_cannot_be_forked_is_told_with_the_reason(peer: Peer) -> None:
    peer.ask_for([0])
    peer.answer(taken=True)
    peer.said()
    peer.answer(failed="no more processes")
    (event,) = peer.said()
    assert event["event"] == "start_failed" and event["why"] == "no more processes"


# --- the stop ---------------------------------------------------------------------------


@pytest.mark.parametrize("stopped", [False, True])
def test_an_exception_after_the_stop_is_not_the_ranks_own(peer: Peer, stopped: bool) -> None:
    (rank,) = peer.start(0)
    if stopped:
        peer.commands("stop", signal=TERM, grace_s=60.0)
    rank.raises()
    peer.turn()
    assert peer.said_names() == ([] if stopped else ["rank_raised"])
    peer.end(rank, status=1 << 8)
    (event, *_) = peer.said()
    assert event["left_by_itself"] == (not stopped) and event["report"]["type"] == "ValueError"


def test_a_stop_ends_ranks_and_is_over_when_they_have_ended(peer: Peer) -> None:
    ranks = peer.start(0, 1)
    peer.commands("stop", signal=TERM, grace_s=60.0)
    assert [rank.process.process.wait(20) for rank in ranks] == [-TERM, -TERM]
    peer.end(ranks[0], status=TERM)
    assert peer.said_names() == ["rank_ended"]
    peer.end(ranks[1], status=TERM)
    assert peer.said_names() == ["rank_ended", "node_stopped"]
    assert not peer.node._ending.over, "it waits to be told to go"
    peer.commands("exit", linger_s=0.0)
    peer.turn()
    assert peer.node._ending.over
    peer.node.wait_for_release()


def test_a_rank_that_was_asked_for_before_the_stop_and_forked_after_it_is_killed(
    peer: Peer,
) -> None:
    peer.ask_for([0])
    peer.forkserver.recv(1 << 16)
    peer.answer(taken=True)
    peer.commands("stop", signal=TERM, grace_s=60.0)
    assert not peer.fork().process.answers()


def test_ranks_that_were_not_yet_asked_for_are_not_started_after_a_stop(peer: Peer) -> None:
    peer.commands("stop", signal=TERM, grace_s=60.0)
    peer.ask_for([0])
    peer.forkserver.setblocking(False)
    with pytest.raises(BlockingIOError):
        peer.forkserver.recv(1)


def test_a_supervisor_that_is_gone_ends_the_node(peer: Peer) -> None:
    (rank,) = peer.start(0)
    os.close(peer.commands_fd)
    peer.commands_fd = os.open(os.devnull, os.O_RDONLY)
    peer.turn()
    assert rank.process.process.wait(20) == -TERM
    peer.end(rank, status=TERM)
    peer.turn()
    assert peer.node._ending.over, "nobody is there to say so"


@pytest.mark.parametrize("how", ["gone", "silent"])
def test_a_lost_forkserver_breaks_the_node(
    peer: Peer, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    peer.start(0)
    forkserver = Echo()
    peer.forks.pid = forkserver.pid
    if how == "gone":
        peer.forkserver.close()
    else:
        monkeypatch.setattr("distrun.agent.node.BEAT_S", 0.0)
        monkeypatch.setattr("distrun.silence.LOST_AFTER_S", 0.0)
        peer.channel.silence._heard_at = float("inf")  # the supervisor's own
        peer.node._beat_at = 0.0
    peer.turn()
    (event,) = peer.said()
    assert event["event"] == "node_broken" and "forks its ranks" in event["why"]
    assert not forkserver.answers()
    assert peer.node._live() == []
    forkserver.close()


# --- signals and stacks -----------------------------------------------------------------

HEARS = """
import faulthandler, os, signal, sys
faulthandler.register(int(sys.argv[1]), file=int(sys.argv[2]), all_threads=True, chain=False)
signal.signal(signal.SIGUSR1, lambda *_: os.write(1, b"heard"))
os.write(1, b"ready")
while True:
    signal.pause()
"""


@pytest.fixture
def hearing(peer: Peer) -> Iterator[tuple[PlayedRank, PlayedRank]]:
    """Two ranks of which the second takes signals."""
    ranks = peer.start(0, 1)
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", HEARS, str(int(STACKS)), str(ranks[1].stacks_fd)],
        stdout=subprocess.PIPE,
        pass_fds=[ranks[1].stacks_fd],
    )
    assert process.stdout and process.stdout.read(5) == b"ready"
    peer.node._ranks[1].pid = process.pid
    yield ranks[0], ranks[1]
    assert process.poll() is None
    process.kill()
    process.communicate()


@LINUX_ONLY
def test_a_signal_goes_to_ranks_that_it_does_not_end_and_the_others_are_named(
    peer: Peer, hearing: tuple[PlayedRank, PlayedRank]
) -> None:
    peer.commands("signal", signal=int(signal.SIGUSR1))
    (event,) = peer.said()
    assert (event["event"], event["deaf"]) == ("signal_forwarded", [0])
    assert hearing[0].process.answers(), "it would have died of it"


@LINUX_ONLY
def test_every_live_rank_says_where_it_is_and_one_that_cannot_is_not_waited_for(
    peer: Peer, hearing: tuple[PlayedRank, PlayedRank]
) -> None:
    peer.commands("stacks", examines=True)
    silent, told = peer.turn_until_told(2)
    assert (silent["rank"], silent["stacks"]) == (0, "")
    assert told["rank"] == 1 and 'File "<string>", line' in told["stacks"]


def test_the_agent_says_that_it_is_there(peer: Peer) -> None:
    peer.said()
    os.set_blocking(peer._events, True)
    for _ in range(2):
        peer.node._beat_at = 0.0
        peer.turn()
        assert os.read(peer._events, 100) == b"\n"


def test_an_agent_that_nobody_hears_ends_its_ranks(peer: Peer) -> None:
    (rank,) = peer.start(0)
    os.close(peer._events)
    peer._events = os.open(os.devnull, os.O_RDONLY)
    peer.channel.event("notice")
    assert peer.channel.lost
    peer.node._beat_at = 0.0
    peer.turn()
    assert rank.process.process.wait(20) == -TERM

"""What ends a run, and what its agents hear of it: signals, the clock, the client, lost nodes."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from distrun import signals
from distrun.runs import directory
from distrun.runs.record import RunRecord
from distrun.streams import NOTHING_HANDED, STDOUT
from distrun.supervise.ending import Ending, Stop, describe
from distrun.supervise.evidence import write_evidence
from distrun.supervise.files import AppendFile
from distrun.supervise.metrics_file import MetricsFile
from distrun.supervise.observer import Observer
from distrun.supervise.supervisor import Order, Supervisor
from distrun.supervise.whereabouts import Answer
from distrun.supervise.world import World
from tests.unit.supervise.played import PlayedAgent, plan_of, rank_ended

INT, TERM = int(signal.SIGINT), int(signal.SIGTERM)


class Played:
    """A supervisor of a run on agents that the test plays."""

    def __init__(self, runs_dir: Path, *, detached: bool, **changes: Any) -> None:
        plan = plan_of(**changes)
        self.run = directory.create(runs_dir, plan.run_id)
        commands_read, self.client_fd = os.pipe()
        self.heard_fd, events_write = os.pipe()
        self._fds = [commands_read, self.heard_fd, events_write]
        record = RunRecord(plan.run_id, "train.py", plan.nnodes, plan.nproc_per_node, 1.0)
        order = Order(plan, self.run, record, {}, detached, NOTHING_HANDED)
        self.it = Supervisor(order, Observer(commands_read, events_write))
        self.agents = [PlayedAgent(node.number) for node in plan.nodes]
        seen = [agent.seen for agent in self.agents]
        self.world = self.it._world = World(plan, 0, 0, seen, self.it._tell)
        for agent in seen:
            self.world.on_event(agent, {"event": "node_joined", "free_port": 40000})
        self.commands()

    def commands(self) -> list[list[dict[str, Any]]]:
        return [agent.told() for agent in self.agents]

    def names(self) -> list[str]:
        """Return what all agents were told since, which must be the same."""
        first, *others = (agent.told_names() for agent in self.agents)
        assert all(other == first for other in others)
        return first

    def events(self, name: str) -> list[dict[str, Any]]:
        path = self.run.events.path
        lines = path.read_text().splitlines() if path.exists() else []
        return [event for event in map(json.loads, lines) if event["event"] == name]

    def close(self) -> None:
        self.it._beat.end()
        self.it._beat.remove(self._fds[-1])
        for file in (self.it._events, self.it._logs):
            file.close()
        self.it._metrics.close()
        for agent in self.agents:
            agent.close()
        for fd in self._fds:
            os.close(fd)


Play = Callable[..., Played]


@pytest.fixture
def played(tmp_path: Path) -> Iterator[Play]:
    made: list[Played] = []

    def play(*, detached: bool = False, **changes: Any) -> Played:
        made.append(Played(tmp_path, detached=detached, **changes))
        return made[-1]

    yield play
    for each in made:
        each.close()


# --- signals ----------------------------------------------------------------------------


def test_a_signal_asks_where_the_ranks_are_and_is_passed_on_with_the_grace(played: Play) -> None:
    it = played()
    it.it._take_signal(INT)
    stop = {"command": "stop", "signal": INT, "grace_s": 30.0}
    assert it.commands() == [[{"command": "stacks", "examines": False}, stop]] * 2
    (event,) = it.events("stopping")
    assert (event["reason"], event["grace_s"]) == ("SIGINT", 30.0)


@pytest.mark.parametrize(
    ("first", "second", "same_for_s", "killed"),
    [
        (TERM, TERM, 1000.0, False),  # a scheduler signals a job and its processes
        (TERM, TERM, -1.0, True),
        (TERM, signal.SIGHUP, 1000.0, False),
        (INT, INT, 1000.0, True),
    ],
)
def test_a_second_signal_kills_unless_it_repeats_the_first(
    played: Play,
    monkeypatch: pytest.MonkeyPatch,
    first: int,
    second: int,
    same_for_s: float,
    killed: bool,
) -> None:
    monkeypatch.setattr(signals, "_SAME_WITHIN_S", same_for_s)
    it = played()
    it.it._take_signal(first)
    assert it.names() == ["stacks", "stop"]
    it.it._take_signal(second)
    assert it.names() == (["kill"] if killed else [])
    assert len(it.events("stopping")) == 1 + killed


def test_signals_that_are_for_ranks_alone_end_nothing(played: Play) -> None:
    it = played()
    for _ in range(3):
        it.it._take_signal(signal.SIGUSR1)
    assert it.names() == ["signal"] * 3
    assert not it.world.stopping and it.it._stop is None


def test_a_signal_that_ranks_do_not_know_reaches_them_as_sigterm(played: Play) -> None:
    it = played()
    it.it._take_signal(signal.SIGXCPU)
    assert [orders[-1]["signal"] for orders in it.commands()] == [TERM, TERM]
    assert it.it._stop == Stop("signal", signal.SIGXCPU)


def test_a_signal_after_a_node_was_lost_says_so(played: Play) -> None:
    it = played()
    it.world.on_gone(it.world.agents[1])
    it.it._take_signal(signal.SIGTERM)
    assert it.it._stop == Stop("signal", signal.SIGTERM, after_loss=True)


# --- the clock and the client -----------------------------------------------------------


def test_the_first_reason_counts_and_ranks_hear_of_a_later_signal(played: Play) -> None:
    it = played(time_limit_s=5.0)
    it.it._on_time_limit()
    assert it.names() == ["stacks", "stop"]
    it.it._take_signal(INT)
    assert it.names() == ["stop"]
    for rank, agent in enumerate(it.agents):
        it.world.on_event(agent.seen, rank_ended(rank, -TERM))
    ending = describe(it.world, it.it._stop)
    assert (ending.outcome, ending.exit_code) == ("time limit", 124)
    assert len(it.events("stopping")) == 1


def test_a_world_that_is_being_stopped_anyway_is_not_asked_twice(played: Play) -> None:
    it = played()
    it.world.stop(TERM, 30.0)
    it.names()
    it.it._on_time_limit()
    assert it.names() == ["stop"]
    assert not it.events("stopping")


@pytest.mark.parametrize("detached", [False, True])
def test_the_end_of_the_client_ends_a_run_that_is_not_detached(
    played: Play, detached: bool
) -> None:
    it = played(detached=detached)
    os.close(it.client_fd)
    it.it._on_commands()
    assert it.names() == ([] if detached else ["stacks", "stop"])
    it.it._take_signal(TERM)  # of `distrun stop`
    assert it.names() == (["stacks", "stop"] if detached else ["stop"])


def test_a_command_of_the_client_is_a_signal(played: Play) -> None:
    it = played()
    os.write(it.client_fd, b'{"signal": 15}\n')
    it.it._on_commands()
    assert it.names() == ["stacks", "stop"]


# --- what agents say --------------------------------------------------------------------


def test_output_and_numbers_go_to_their_files_whole(played: Play) -> None:
    it = played()
    first = {"event": "rank_started", "rank": 1, "pid": 7}
    words = {"event": "output", "rank": 0, "stream": STDOUT, "nbytes": 6}
    numbers = {"event": "metrics", "rank": 0, "time": 2.0, "step": 3, "total_steps": None}
    os.write(
        it.agents[0].events_fd,
        json.dumps(words).encode()
        + b"\nhello\n"
        + json.dumps(first).encode()
        + b"\n"
        + json.dumps({**numbers, "values": {"loss": 0.5, "rank": 99}}).encode()
        + b"\n",
    )
    it.it._on_agent(it.agents[0].seen)
    assert it.run.log(0, 0).path.read_bytes() == b"hello\n"
    assert it.run.log(0, 1).path.read_bytes() == b"", "one that says nothing has a log too"
    it.it._metrics.close()
    (line,) = it.run.metrics.path.read_text().splitlines()
    own = {"rank": 0, "time": 2.0, "step": 3, "total_steps": None}
    assert json.loads(line) == {"loss": 0.5, "rank_": 99, **own}, (
        "a value cannot take the place of the rank"
    )
    it.it._observer.flush_for(60.0)
    heard = os.read(it.heard_fd, 1 << 16).split(b"\n")
    assert any(b'"metrics"' in line for line in heard)


def test_the_end_of_an_agents_pipe_is_its_end(played: Play) -> None:
    it = played()
    seen = it.agents[1].seen
    os.close(it.agents[1].events_fd)
    it.it._on_agent(seen)
    assert seen.gone and it.world.lost == [seen]
    it.agents[1].events_fd = os.open(os.devnull, os.O_RDONLY)


# --- what comes after a world ------------------------------------------------------------


def test_what_is_left_of_a_run_names_its_errors_and_places(played: Play) -> None:
    it = played()
    told = {"report": {"type": "ValueError", "message": "no"}, "stacks": "Thread 0x7"}
    for rank, code in ((0, 0), (1, 1)):
        it.world.on_event(it.agents[rank].seen, rank_ended(rank, code, **told))
    it.world.where.at_stop[0] = Answer("Thread 0x1", flight={"groups": []})
    write_evidence(it.it._run, it.it._world, Ending("failed", 1, "it failed"), it.it._complain)
    errors = sorted(path.name for path in (it.run.path / "errors").iterdir())
    assert errors == ["rank1.json"], "rank 0 has ended with 0"
    assert it.run.stacks(0).path.read_text() == "Thread 0x1\n"
    assert json.loads(it.run.flight(0).path.read_text()) == {"groups": []}
    assert it.run.stacks(1).path.read_text() == "Thread 0x7\n"


def test_the_end_is_written_and_told_and_every_file_is_whole(played: Play) -> None:
    it = played(nnodes=1)
    it.it._metrics = MetricsFile(
        AppendFile(it.run.metrics, pytest.fail), lambda _: None, limit_nbytes=100
    )
    for step in range(12):  # beyond the limit steps are left out, but never the last
        own = {"rank": 0, "time": float(step), "step": step, "total_steps": None}
        it.it._metrics.write({"loss": 0.5, **own})
    it.world.on_event(it.agents[0].seen, rank_ended(0))
    assert it.it._end(1) == 0
    steps = [json.loads(line)["step"] for line in it.run.metrics.path.read_text().splitlines()]
    assert steps[-1] == 11 and len(steps) < 12
    found = json.loads(it.run.record.path.read_text())
    assert (found["outcome"], found["exit_code"], found["attempts"]) == ("succeeded", 0, 1)
    assert found["ended_at"] is not None
    (ended,) = it.events("ended")
    assert (ended["outcome"], ended["exit_code"], ended["verdict"]) == ("succeeded", 0, None)
    assert json.loads(os.read(it.heard_fd, 1 << 16).splitlines()[-1]) == ended

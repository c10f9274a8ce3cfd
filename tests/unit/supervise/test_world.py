"""One attempt: what its agents are told, what everybody is told, and what it is in the end."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from distrun.diagnose.verdict import judge
from distrun.plan.model import LaunchPlan, NodePlan
from distrun.supervise.world import SETTLE_S, World
from tests.conftest import wait_until
from tests.unit.supervise.played import PlayedAgent, plan_of, rank_ended, report

TERM = int(signal.SIGTERM)


class Played:
    """A world, the agents in it, and what it has told."""

    def __init__(self, plan: LaunchPlan, *, joined: bool) -> None:
        self.agents = [PlayedAgent(node.number) for node in plan.supervised]
        self.told: list[dict[str, Any]] = []
        seen = [agent.seen for agent in self.agents]
        self.world = World(
            plan, 0, 0, seen, lambda name, **f: self.told.append({"event": name, **f})
        )
        if joined:
            self.join(*range(len(self.agents)))

    def say(self, index: int, event: str | dict[str, Any], **fields: Any) -> None:
        whole = {"event": event, **fields} if isinstance(event, str) else event
        self.world.on_event(self.agents[index].seen, whole)

    def join(self, *indices: int) -> None:
        for index in indices:
            self.say(index, "node_joined", free_port=40000 + index)

    def commands(self) -> list[list[str]]:
        """Return the names of what each agent was told since the last call."""
        return [agent.told_names() for agent in self.agents]

    def tells(self, name: str) -> list[dict[str, Any]]:
        return [event for event in self.told if event["event"] == name]

    def pass_time_until(self, condition: Callable[[], object]) -> None:
        def passes() -> object:
            self.world.on_time()
            return condition()

        wait_until(passes)


@pytest.fixture
def played() -> Iterator[Callable[..., Played]]:
    """Make a world of played agents, all joined unless told otherwise."""
    made: list[Played] = []

    def play(*, joined: bool = True, **changes: Any) -> Played:
        made.append(Played(plan_of(**changes), joined=joined))
        return made[-1]

    yield play
    for each in made:
        for agent in each.agents:
            agent.close()


Play = Callable[..., Played]


# --- the start --------------------------------------------------------------------------


def test_a_node_that_supervises_itself_has_its_own_place_and_counts_its_own_ranks(
    played: Play,
) -> None:
    it = played(joined=False, own_node=1, local=False, nproc_per_node=2)
    assert [agent.seen.index for agent in it.agents] == [1]
    it.join(0)
    (order,) = it.agents[0].told()
    assert order["arguments"] == it.world.plan.torchrun_arguments(1) and order["by_itself"]
    (started,) = it.tells("world_started")
    assert (started["world_size"], started["supervised_ranks"]) == (4, 2)
    for rank in (2, 3):
        assert not it.world.succeeded
        it.say(0, rank_ended(rank, 0))
    assert it.world.succeeded


def test_ranks_start_when_the_last_node_has_joined_each_with_its_own_place(played: Play) -> None:
    it = played(joined=False)
    it.join(1)
    assert it.commands() == [[], []] and not it.world.started
    it.join(0)
    orders = [agent.told() for agent in it.agents]
    for node_rank, (order,) in enumerate(orders):
        assert order["command"] == "start"
        assert order["arguments"] == it.world.plan.torchrun_arguments(node_rank)
    assert [event["joined"] for event in it.tells("node_joined")] == [1, 2]
    (started,) = it.tells("world_started")
    assert (started["nnodes"], started["world_size"]) == (2, 2)


@pytest.mark.parametrize(
    ("attempt", "is_users", "port"), [(0, False, 29500), (1, False, 40000), (1, True, 29500)]
)
def test_a_restart_takes_a_port_that_is_free_on_the_head_unless_the_user_names_one(
    played: Callable[..., Played], attempt: int, is_users: bool, port: int
) -> None:
    it = played(joined=False, master_port_is_users=is_users)
    it.world.attempt = attempt
    it.join(0, 1)
    (start,) = it.agents[1].told()
    assert f"--master-port={port}" in start["arguments"]


def test_a_node_that_joins_while_the_world_is_stopped_starts_nothing(played: Play) -> None:
    it = played(joined=False)
    it.join(0)
    it.world.stop(TERM, 30.0)
    assert not it.agents[1].is_alive, "it had no rank that could save anything"
    it.join(1)
    assert it.commands() == [["stop"], []] and not it.world.started


def test_a_node_that_does_not_join_in_time_is_killed_and_named(played: Play) -> None:
    it = played(joined=False, join_timeout_s=0.0)
    it.join(0)
    it.world.on_time()
    assert [agent.host for agent in it.world.missing] == ["node1"]
    assert not it.agents[1].is_alive and it.agents[0].is_alive
    assert it.commands()[0] == ["stop"]
    assert it.world.never_began and not it.world.succeeded


def test_an_elastic_world_starts_without_it_and_does_not_lose_it(played: Play) -> None:
    it = played(joined=False, nnodes=3, min_nodes=2, join_timeout_s=0.0)
    it.join(0, 2)
    it.world.on_time()
    assert [agent.seen.node_rank for agent in it.agents] == [0, -1, 1]
    assert it.commands() == [["start"], [], ["start"]]
    (event,) = it.tells("starting_without")
    assert (event["missing"], event["nnodes"]) == (["node1"], 2)
    it.world.on_gone(it.agents[1].seen)
    assert not it.world.lost and not it.world.stopping
    assert [node.number for node in it.world.plan.nodes] == [0, 2]


def test_who_is_waited_for_is_told_before_the_time_is_over(played: Play) -> None:
    it = played(joined=False)
    it.join(0)
    it.say(1, "node_stage", stage="importing torch", pid=it.agents[1].process.pid)
    it.world._stages._joining._next_s = 0.0
    it.world.on_time()
    (event,) = it.tells("waiting")
    assert event["joined"] == ["node0"]
    assert event["missing"] == ["node1 (importing torch)"]


def test_ranks_that_do_not_start_in_time_are_given_up(played: Play) -> None:
    it = played(join_timeout_s=1.0)
    it.say(0, "rank_started", rank=0, pid=7)
    it.commands()
    it.pass_time_until(lambda: it.world.stopping)
    assert [agent.host for agent in it.world.unstarted] == ["node1"]
    assert it.commands() == [["stop"], ["stop"]] and it.world.never_began


# --- the end ----------------------------------------------------------------------------


def test_a_world_succeeds_when_every_rank_of_every_node_has_ended_with_0(played: Play) -> None:
    it = played()
    it.commands()
    for index in (0, 1):
        assert not it.world.succeeded and not it.world.released
        it.say(index, rank_ended(index))
        it.say(index, "node_succeeded")
    assert it.world.succeeded and it.world.clean
    for agent in it.agents:
        assert agent.told() == [{"command": "exit", "linger_s": 7.0}]
    for index in (0, 1):
        assert not it.world.finished
        it.say(index, "swept")
        it.world.on_gone(it.agents[index].seen)
    assert it.world.finished and not it.world.lost


def test_ends_on_hosts_with_clocks_of_their_own_are_put_in_order_whichever_is_heard_first(
    played: Play,
) -> None:
    it, now = played(local=False), time.monotonic()
    clocks = (5000.0, -3000.0)  # ahead of ours
    for index, ahead in enumerate(clocks):
        it.say(index, "node_joined", free_port=1, monotonic=now + ahead)
    it.say(1, "looked", ranks=[], monotonic=now - 60 + clocks[1])  # this one took a minute
    it.say(0, rank_ended(0, 6, monotonic=now + clocks[0] - 1))
    it.say(1, rank_ended(1, 5, monotonic=now + clocks[1] - 3))
    verdict = judge(it.world.ends)
    assert verdict and (verdict.rank, verdict.exit_code) == (1, 5)
    assert verdict.within_ms == pytest.approx(2000, abs=500)


def test_the_first_failure_stops_all_ranks_after_others_could_say_the_same(played: Play) -> None:
    it = played()
    it.commands()
    it.say(0, rank_ended(0, 1))
    assert it.commands() == [[], []]
    assert 0 < it.world.on_time() <= SETTLE_S, "it looks again when the time is over"
    it.say(1, rank_ended(1, 1))
    it.pass_time_until(lambda: it.world.stopping)
    for agent in it.agents:
        assert agent.told() == [{"command": "stop", "signal": TERM, "grace_s": 30.0}]
    assert [end.after_stop for end in it.world.ends] == [False, False]
    assert not it.world.succeeded


def test_an_end_after_the_stop_is_a_victims_unless_the_rank_had_left_before(played: Play) -> None:
    it = played(nnodes=1, nproc_per_node=2)
    it.world.stop(TERM, 30.0)
    it.say(0, rank_ended(0, -TERM))
    it.say(0, rank_ended(1, 1, left_by_itself=True))
    assert [end.after_stop for end in it.world.ends] == [True, False]
    assert [event["victim"] for event in it.tells("rank_ended")] == [True, False]


def test_whoever_is_waited_for_is_asked_where_it_is_before_it_is_stopped(played: Play) -> None:
    it = played()
    it.say(1, "rank_started", rank=1, pid=7)
    it.commands()
    it.say(0, rank_ended(0, 1, report=report("Timed out waiting 1800 s", "RuntimeError")))
    it.pass_time_until(lambda: it.world.stopping)
    assert it.commands() == [["stacks", "stop"]] * 2
    it.say(1, "stacks", rank=1, stacks="Thread 0x1", state="S")
    assert it.world.where.at_stop[1].stacks == "Thread 0x1"


def test_a_rank_that_has_raised_and_does_not_end_is_told_and_ends_the_world(
    played: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distrun.supervise.raised._PATIENCE_S", 0.0)
    it = played()
    it.say(0, "rank_raised", rank=0, report=report("no"))
    it.pass_time_until(lambda: it.world.stopping)
    (event,) = it.tells("rank_stays")
    assert (event["rank"], event["type"], event["line"]) == (0, "ValueError", 3)


def test_ranks_that_go_on_for_long_after_others_are_asked_and_told(played: Play) -> None:
    it = played(straggler_notice_s=0.01)
    for rank in (0, 1):
        it.say(rank, "rank_started", rank=rank, pid=7)
    it.commands()
    it.say(0, rank_ended(0))
    it.pass_time_until(lambda: "stacks" in it.agents[1].told_names())
    it.say(1, "stacks", rank=1, stacks="", state="S")
    it.pass_time_until(lambda: it.tells("stragglers"))
    assert it.tells("stragglers")[0]["ended"] == [0]
    assert not it.world.stopping


@pytest.mark.parametrize(
    ("first", "then"), [((1000.0, 5.0), (0.0, 0.0)), ((0.0, 0.0), (1000.0, 5.0))]
)
def test_a_second_stop_gives_no_more_time_and_may_give_less(
    played: Play, first: tuple[float, float], then: tuple[float, float]
) -> None:
    it = played()
    it.world.stop(TERM, *first)
    it.world.stop(TERM, *then)
    it.world.on_time()
    assert not any(agent.is_alive for agent in it.agents)


def test_a_stop_leaves_agents_alive_for_longer_than_the_grace_of_their_ranks(played: Play) -> None:
    it = played()
    it.world.stop(TERM, 0.0)
    it.world.on_time()
    assert all(agent.is_alive for agent in it.agents)
    it.world.kill()
    assert it.commands() == [["start", "stop", "kill"]] * 2


def test_a_stopped_world_is_let_go_when_all_nodes_have_stopped(played: Play) -> None:
    it = played()
    it.world.stop(TERM, 30.0)
    it.say(0, "node_stopped")
    assert not it.world.released
    it.say(1, "node_stopped")
    assert it.world.released and not it.world.clean
    assert it.commands() == [["start", "stop", "exit"]] * 2
    it.world.on_gone(it.agents[0].seen)
    assert not it.world.lost, "it was told to go"


# --- faults -----------------------------------------------------------------------------


def test_an_agent_that_goes_without_a_word_is_lost_with_its_ranks(played: Play) -> None:
    it = played()
    it.say(1, "rank_started", rank=1, pid=7)
    it.commands()
    it.world.on_gone(it.agents[1].seen)
    assert not it.agents[1].is_alive
    (event,) = it.tells("node_lost")
    assert (event["node"], event["ranks"], event["why"]) == (1, [1], "")
    assert it.commands()[0] == ["stop"], "the other node"
    it.say(0, "node_stopped")
    assert it.commands()[0] == ["exit"], "nobody waits for the word of one that is gone"


def test_an_agent_that_says_nothing_for_long_is_told_and_then_given_up(
    played: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    it = played()
    monkeypatch.setattr("distrun.silence.TOLD_AFTER_S", 0.0)
    it.world.on_time()
    assert "node0 has been silent for" in it.tells("notice")[0]["message"]
    assert all(agent.is_alive for agent in it.agents)
    monkeypatch.setattr("distrun.silence.LOST_AFTER_S", 0.0)
    it.world.on_time()
    assert not any(agent.is_alive for agent in it.agents)
    it.world.on_gone(it.agents[0].seen)
    assert it.tells("node_lost")[0]["why"].startswith("node0: its agent said nothing for")


@pytest.mark.parametrize(
    ("event", "fields"),
    [
        ("engine_failed", {"type": "DistNetworkError", "message": "port: EADDRINUSE"}),
        ("start_failed", {"what": "a rank cannot be started", "why": "no room"}),
        ("node_broken", {"why": "the process that forks its ranks was killed"}),
    ],
)
def test_what_an_agent_cannot_do_stops_all_nodes(
    played: Play, event: str, fields: dict[str, Any]
) -> None:
    it = played()
    it.commands()
    it.say(1, event, **fields)
    assert it.commands() == [["stop"], ["stop"]]
    it.world.on_gone(it.agents[1].seen)
    assert not it.world.succeeded
    assert it.world.port_was_taken == (event == "engine_failed")
    assert bool(it.world.lost) == (event == "node_broken")
    assert bool(it.world.start_error) == (event == "start_failed")


def test_an_agent_that_could_not_be_made_stops_the_others(played: Play) -> None:
    it = played()
    node = NodePlan(2, "node2", "127.0.0.1", {})
    it.world.cannot_start(node, OSError(12, "Cannot allocate memory"))
    assert it.world.never_began and "node2" in it.world.start_error
    assert it.commands() == [["start", "stop"]] * 2


def test_an_event_that_nobody_knows_is_a_notice_and_known_ones_pass(played: Play) -> None:
    it = played()
    it.say(0, "from_the_future", answer=42)
    assert it.told[-1]["event"] == "notice" and "'from_the_future'" in it.told[-1]["message"]
    it.say(1, "killed", processes="sleep (pid 9)")
    assert it.told[-1] == {"event": "killed", "node": 1, "processes": "sleep (pid 9)"}


@pytest.mark.parametrize("event", [{"schema": 99}, {"event": "of another version", "nbytes": 3}])
def test_a_message_that_means_nothing_here_is_a_notice_each_time(
    played: Play, event: dict[str, Any]
) -> None:
    it = played()
    for _ in range(2):
        it.say(1, event)
    first, second = it.tells("notice")
    assert first == second
    assert "node1 says" in first["message"]

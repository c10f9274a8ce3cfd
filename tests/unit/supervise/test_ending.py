"""How a run ended: the words, the exit code, and what came first."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from distrun.supervise.ending import Ending, Stop, describe
from distrun.supervise.world import World
from distrun.wire import WAITING_FOR_NODES
from tests.unit.supervise.played import PlayedAgent, plan_of, rank_ended, report

INT, TERM, HUP, KILL = (
    int(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL)
)
End = Callable[..., Ending]


class Played:
    """A world of two nodes with a rank each that has come to its end."""

    def __init__(self) -> None:
        self.agents = [PlayedAgent(0), PlayedAgent(1)]
        plan = plan_of(time_limit_s=90.0, warm=False)
        self.it = World(plan, 0, 0, [agent.seen for agent in self.agents], lambda *_, **__: None)
        self.it.started = True

    def ends(self, *codes: int, **changes: Any) -> None:
        """Let ranks end, in this order."""
        for at, (rank, code) in enumerate(zip((0, 1), codes, strict=False)):
            event = rank_ended(rank, code, **{"monotonic": float(at), **changes})
            self.it.on_event(self.agents[rank].seen, event)

    def close(self) -> None:
        for agent in self.agents:
            agent.close()


@pytest.fixture
def world() -> Iterator[Played]:
    played = Played()
    yield played
    played.close()


def test_all_ranks_that_end_with_0_are_a_success_whoever_wants_to_stop_then(world: Played) -> None:
    world.ends(0, 0)
    assert describe(world.it, None).exit_code == 0
    world.it.clean = True
    assert describe(world.it, Stop("signal", INT)).outcome == "succeeded"


@pytest.mark.parametrize(
    ("stop", "outcome", "code"),
    [
        (Stop("signal", INT), "interrupted", 130),
        (Stop("signal", TERM), "terminated", 143),
        (Stop("signal", HUP), "hung up", 129),
        (Stop("signal", int(signal.SIGQUIT)), "quit", 131),
        (Stop("signal", int(signal.SIGXCPU)), "terminated", 128 + int(signal.SIGXCPU)),
        (Stop("time limit"), "time limit", 124),
        (Stop("client lost"), "terminated", 143),
    ],
)
def test_who_stops_a_run_names_its_end(world: Played, stop: Stop, outcome: str, code: int) -> None:
    world.it.stop(TERM, 30.0)
    world.ends(-TERM, -KILL)
    ending = describe(world.it, stop)
    assert (ending.outcome, ending.exit_code) == (outcome, code)
    if stop.kind != "client lost":
        assert "1 of 2 ranks had to be killed" in ending.summary


def test_ranks_that_end_by_themselves_after_a_signal_have_saved(world: Played) -> None:
    world.it.stop(TERM, 30.0)
    world.ends(0, 0)
    ending = describe(world.it, Stop("signal", TERM))
    assert ending.exit_code == 143
    assert "every rank ended with 0 by itself" in ending.summary


def test_a_failure_before_the_signal_is_the_reason(world: Played) -> None:
    world.ends(1, report=report("no"))
    world.it.stop(TERM, 30.0)
    ending = describe(world.it, Stop("signal", TERM))
    assert (ending.outcome, ending.exit_code) == ("failed", 1)
    assert ending.summary == "rank 0 on node0 failed first: ValueError: no"


def test_a_lost_node_is_the_reason_though_all_nodes_are_stopped_because_of_it(
    world: Played,
) -> None:
    """As Compose and the Job controller do when a container has ended."""
    world.it.on_gone(world.agents[1].seen)
    world.ends(-TERM, after_stop=True)
    ending = describe(world.it, Stop("signal", TERM, after_loss=True))
    assert (ending.outcome, ending.exit_code) == ("node lost", 5)
    assert "node1" in ending.summary
    stopped = describe(world.it, Stop("signal", TERM))  # and then the node was lost
    assert (stopped.outcome, stopped.exit_code) == ("terminated", 143)


def test_a_rank_that_only_lost_its_peer_is_not_the_reason_of_a_lost_node(world: Played) -> None:
    world.it.on_gone(world.agents[1].seen)
    world.agents[1].seen.talk.words = b"Killed\n\n"
    lost = report("Connection closed by peer", "RuntimeError")
    world.it.on_event(world.agents[0].seen, rank_ended(0, 1, left_by_itself=True, report=lost))
    ending = describe(world.it, None)
    assert (ending.outcome, ending.exit_code) == ("node lost", 5)
    assert ending.summary == "the agent of node1 ended unexpectedly; the last line it wrote: Killed"
    assert ending.verdict is None, "what a rank of a sound node printed tells nothing of it"


def test_a_rank_with_a_reason_of_its_own_is_even_if_its_node_is_lost_then(world: Played) -> None:
    world.ends(3)
    world.it.on_gone(world.agents[0].seen)
    ending = describe(world.it, None)
    assert (ending.outcome, ending.exit_code) == ("failed", 3)


def on_its_own(world: Played, own_node: int = 0) -> None:
    """Let the world be one of which this run supervises one node."""
    world.it.plan = replace(world.it.plan, own_node=own_node, local=False)
    world.it.agents = [world.it.agents[own_node]]


def lost_a_peer(world: Played) -> None:
    lost = report("Connection closed by peer", "RuntimeError")
    world.it.on_event(world.agents[0].seen, rank_ended(0, 1, left_by_itself=True, report=lost))


def told_of_a_peer(world: Played) -> None:
    event = {"event": "engine_failed", "type": "PeerLost", "message": "node1 has failed"}
    world.it.on_event(world.agents[0].seen, event)


@pytest.mark.parametrize(
    ("happen", "summary"),
    [
        ([lost_a_peer], "another node has failed: rank 0 on node0 lost a peer: RuntimeError: Conn"),
        ([told_of_a_peer], "node1 has failed"),
        ([told_of_a_peer, lost_a_peer], "node1 has failed"),
    ],
)
def test_a_node_whose_ranks_only_lost_their_peers_says_that_the_cause_is_elsewhere(
    happen: list[Callable[[Played], None]], summary: str, world: Played
) -> None:
    on_its_own(world)
    for each in happen:
        each(world)
    ending = describe(world.it, None)
    assert (ending.outcome, ending.exit_code) == ("node lost", 5)
    assert ending.summary.startswith(summary) and "on another node" in ending.hint


def test_a_nodes_own_failure_is_its_own_verdict(world: Played) -> None:
    on_its_own(world)
    world.ends(7)
    told_of_a_peer(world)
    assert (describe(world.it, None).outcome, describe(world.it, None).exit_code) == ("failed", 7)


@pytest.mark.parametrize(
    ("own_node", "words"),
    [(0, "the other node, 1, did not come to"), (1, "node0 was not to be reached at")],
)
def test_a_node_that_waited_in_vain_names_the_others(
    own_node: int, words: str, world: Played
) -> None:
    on_its_own(world, own_node)
    agent = world.it.agents[0]
    agent.stage = WAITING_FOR_NODES
    world.it.unstarted = [agent]
    ending = describe(world.it, None)
    assert (ending.outcome, ending.exit_code) == ("nodes missing", 4)
    assert ending.summary.startswith(f"{words} 127.0.0.1 port 29500")


def missing(world: World) -> None:
    world.missing = [world.agents[1]]


def unstarted(world: World) -> None:
    world.unstarted = [world.agents[1]]


def start_error(world: World) -> None:
    world.start_error = "a rank cannot be started on node1: no room"


def port_taken(world: World) -> None:
    world.engine_errors = [(world.agents[0], "DistNetworkError", "EADDRINUSE")]


def engine(world: World) -> None:
    world.engine_errors = [(world.agents[1], "DistStoreError", "no answer")]


@pytest.mark.parametrize(
    ("what", "outcome", "code", "said"),
    [
        (missing, "nodes missing", 4, "1 of 2 nodes did not join within 600 s: node1 (starting)"),
        (unstarted, "ranks not started", 4, "not all ranks started within 600 s: node1"),
        (start_error, "not started", 3, "a rank cannot be started on node1: no room"),
        (port_taken, "port taken", 3, "port 29500 was taken by another process"),
        (engine, "node lost", 5, "the agent of node1 failed: DistStoreError: no answer"),
        (lambda _: None, "failed", 70, "the run ended without a reason"),
    ],
)
def test_what_kept_a_world_from_its_end_has_its_own_code(
    world: Played, what: Callable[[World], None], outcome: str, code: int, said: str
) -> None:
    what(world.it)
    ending = describe(world.it, None)
    assert (ending.outcome, ending.exit_code) == (outcome, code)
    assert said in ending.summary and ending.hint

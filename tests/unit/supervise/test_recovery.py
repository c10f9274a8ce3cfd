"""What follows the end of an attempt."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from distrun.diagnose.verdict import RankEnd
from distrun.failures import chosen
from distrun.plan.model import LaunchPlan, NodePlan
from distrun.supervise.recovery import Recovery
from distrun.supervise.world import World
from tests.unit.supervise.played import PlayedAgent, plan_of

SPARE = NodePlan(9, "spare", "127.0.0.1", {})
Ended = Callable[..., World]


class Told:
    """The events of a recovery."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, name: str, **fields: Any) -> None:
        self.events.append((name, fields))

    def said(self) -> str:
        return " ".join(str(f.get("message") or f.get("reason")) for _, f in self.events)


@pytest.fixture
def ended() -> Iterator[Ended]:
    """Make an attempt that has ended: ranks that crashed, and nodes that were lost."""
    agents: list[PlayedAgent] = []

    def make(
        plan: LaunchPlan, *, crashed: int | None = None, lost: tuple[int, ...] = (), step: int = -1
    ) -> World:
        own = [PlayedAgent(node.number) for node in plan.nodes]
        agents.extend(own)
        world = World(plan, 0, 0, [agent.seen for agent in own], Told())
        world.started = True
        if step >= 0:
            world.steps.on_milestone({"what": "begun", "step": 0, "time_s": 0.0})
            world.steps.on_metrics(step)
        if crashed is not None:
            world.ends.append(RankEnd(crashed, plan.nodes[crashed].number, "x", 3, 1.0))
        for agent in world.agents:
            if agent.index in lost:
                world.lost.append(agent)
        return world

    yield make
    for agent in agents:
        agent.close()


def after(world: World, standing: tuple[NodePlan, ...] = ()) -> tuple[list[int] | None, Told]:
    """Return the numbers of the nodes of the next attempt, and what was told."""
    told = Told()
    recovery = Recovery(0, told)
    recovery.take(world)
    plan = recovery.next_plan(world, standing)
    return (None if plan is None else [node.number for node in plan.nodes]), told


@pytest.mark.parametrize(
    ("min_nodes", "lost", "standing", "nodes"),
    [
        (3, (1,), (), None),
        (2, (1,), (), [0, 2]),
        (1, (0, 2), (), [1]),
        (2, (0, 2), (), None),
        (3, (1,), (SPARE,), [0, 2, 9]),
        (2, (1, 2), (SPARE,), [0, 9]),
        (3, (1, 2), (SPARE,), None),
    ],
)
def test_a_lost_node_is_replaced_or_left_out(
    ended: Ended,
    min_nodes: int,
    lost: tuple[int, ...],
    standing: tuple[NodePlan, ...],
    nodes: list[int] | None,
) -> None:
    plan = plan_of(nnodes=3, min_nodes=min_nodes, max_nodes=3, spares=standing)
    assert after(ended(plan, lost=lost), standing)[0] == nodes


@pytest.mark.parametrize(
    ("action", "restarts", "standing", "nodes"),
    [
        ("retry", 0, (), None),
        ("retry", 1, (), [0, 1, 2]),
        ("stop", 1, (SPARE,), None),
        ("swap", 0, (SPARE,), [0, 2, 9]),
        ("swap", 1, (), [0, 2]),
        ("shrink", 0, (SPARE,), [0, 2]),
    ],
)
def test_a_crash_is_answered_as_the_user_wants(
    ended: Ended,
    action: str,
    restarts: int,
    standing: tuple[NodePlan, ...],
    nodes: list[int] | None,
) -> None:
    plan = plan_of(
        nnodes=3,
        min_nodes=2,
        max_nodes=3,
        max_restarts=restarts,
        actions=chosen({"crash": action}),
        spares=standing,
    )
    found, told = after(ended(plan, crashed=1), standing)
    assert found == nodes
    if action == "stop":
        assert "--on crash=stop" in told.said()


def test_a_node_that_has_come_back_joins_at_any_restart(ended: Ended) -> None:
    plan = plan_of(nnodes=2, min_nodes=1, max_nodes=3, max_restarts=1)
    back = NodePlan(2, "node2", "127.0.0.1", {})
    assert after(ended(plan, crashed=0), (back,))[0] == [0, 1, 2]


def test_a_suspect_that_was_replaced_stays_out(ended: Ended) -> None:
    plan = plan_of(
        nnodes=2, min_nodes=2, max_nodes=2, actions=chosen({"crash": "swap"}), spares=(SPARE,)
    )
    recovery = Recovery(0, Told())
    recovery.take(world := ended(plan, crashed=1))
    following = recovery.next_plan(world, (SPARE,))
    assert following is not None and recovery.out == {1}
    assert following.spares == ()
    assert (recovery.attempt, recovery.restarts) == (1, 1)
    again = ended(following, crashed=1)
    recovery.take(again)
    assert recovery.next_plan(again, (plan.nodes[1],)) is None


def test_restarts_without_a_new_step_count_double_and_three_of_them_end_it(ended: Ended) -> None:
    plan = plan_of(nnodes=1, max_restarts=3, actions=chosen({"bad-node": "retry"}))
    recovery, count = Recovery(0, Told()), 0
    for _ in range(9):
        recovery.take(world := ended(plan, crashed=0, step=5))
        if recovery.next_plan(world, ()) is None:
            break
        count += 1
    assert count == 2, "the second one was counted twice"


def test_progress_makes_a_restart_count_once(ended: Ended) -> None:
    plan = plan_of(nnodes=1, max_restarts=3, actions=chosen({"bad-node": "retry"}))
    recovery = Recovery(0, Told())
    for attempt in range(3):
        recovery.take(world := ended(plan, crashed=0, step=5 + attempt))
        assert recovery.next_plan(world, ()) is not None
    recovery.take(world := ended(plan, crashed=0, step=9))
    assert recovery.next_plan(world, ()) is None


def test_a_node_that_never_joins_is_not_tried_for_ever(ended: Ended) -> None:
    plan = plan_of(nnodes=1, max_restarts=1000)
    told = Told()
    recovery = Recovery(0, told)
    restarts, following = -1, plan
    while following is not None and restarts < 10:
        restarts += 1
        world = ended(plan, lost=(0,))
        world.started = False
        recovery.take(world)
        following = recovery.next_plan(world, ())
    assert restarts == 3
    assert "3 restarts in a row brought no new step" in told.said()

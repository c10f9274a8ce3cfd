"""The time in which nodes join: who is waited for, and what starts without the missing ones."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from distrun.supervise.agents import Agent
from distrun.supervise.attempt import Attempt

_FIRST_WAITING_S, _WAITING_S = 3.0, 10.0


class Joining:
    """The time in which nodes join."""

    def __init__(self) -> None:
        self._next_s = _FIRST_WAITING_S

    def watch(self, world: Attempt, waited_s: float) -> None:
        """Say who is missing, and go on without them when their time is over."""
        if waited_s >= world.plan.join_timeout_s:
            _go_on_without(world, [agent for agent in world.active if not agent.joined])
        elif waiting := self.news(waited_s, world.active):
            world.tell("waiting", **waiting)

    def news(self, waited_s: float, agents: Sequence[Agent]) -> dict[str, Any] | None:
        """Return the event about who is missing, if it is due."""
        if waited_s < self._next_s:
            return None
        self._next_s += _WAITING_S
        return {
            "waited_s": round(waited_s),
            "joined": [agent.host for agent in agents if agent.joined],
            "missing": [f"{agent.host} ({agent.stage})" for agent in agents if not agent.joined],
        }


def _go_on_without(world: Attempt, absent: list[Agent]) -> None:
    """Start an elastic world with those that have joined, and with spares; or end it."""
    plan = world.plan
    for agent in absent:
        agent.give_up()
    present = _with_spares(world, [agent for agent in world.active if agent.joined])
    if len(present) < plan.min_nodes:
        world.missing = absent
        world.stop(signal.SIGTERM, 0.0)
        return
    world.spared = absent
    nodes = [world.known[agent.index] for agent in present]
    spares = tuple(node for node in plan.spares if node not in nodes)
    world.plan = replace(plan.next_attempt(world.attempt, nodes), spares=spares)
    missing = [agent.host for agent in absent]
    world.tell("starting_without", missing=missing, nnodes=len(present))
    start(world, present)


def _with_spares(world: Attempt, present: list[Agent]) -> list[Agent]:
    """Return the agents with spares in the places of those that have not come."""
    ready = [agent for agent in world.agents if agent.standby and agent.joined]
    taken = ready[: world.plan.nnodes - len(present)]
    for agent in taken:
        agent.standby = False
    return sorted([*present, *taken], key=lambda agent: agent.index)


def start(world: Attempt, agents: list[Agent]) -> None:
    """Assign a node rank to every joined node and start the ranks."""
    world.started = True
    if world.attempt and not world.plan.master_port_is_users:  # the first port was left at an end
        world.plan = replace(world.plan, master_port=agents[0].free_port)
    world.started_at = time.monotonic()
    for node_rank, agent in enumerate(agents, world.plan.own_node or 0):
        agent.node_rank = node_rank
        order = world.plan.start_order(node_rank, agent.index)
        agent.send("start", restarts=world.restarts, **order)
    world.tell(
        "world_started",
        attempt=world.attempt,
        nnodes=world.plan.nnodes,
        world_size=world.plan.world_size,
        supervised_ranks=world.plan.supervised_ranks,
        run_id=world.plan.run_id,
    )

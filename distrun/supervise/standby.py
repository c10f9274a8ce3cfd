"""The nodes without ranks: spares, and nodes that were lost and may come back."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from distrun.plan.model import LaunchPlan, NodePlan
from distrun.supervise.world import World

_FIRST_TRY_S, _LONGEST_S = 10.0, 60.0


@dataclass
class _Away:
    """A node that was lost, and when it is tried again."""

    node: NodePlan
    due_at: float
    delay_s: float = _FIRST_TRY_S


class Standby:
    """What stands by over all attempts of a run."""

    def __init__(self) -> None:
        self._away: dict[int, _Away] = {}

    def lost(self, nodes: Iterable[NodePlan]) -> None:
        """Note nodes that were lost, or did not come: they are tried again."""
        for node in nodes:
            self._away.setdefault(node.number, _Away(node, time.monotonic() + _FIRST_TRY_S))

    def put_out(self, numbers: Iterable[int]) -> None:
        """Note nodes that get no ranks any more."""
        for number in numbers:
            self._away.pop(number, None)

    def due(self, world: World) -> list[NodePlan]:
        """Return the nodes whose agents are to be started now, to see whether they are back."""
        if world.stopping or not world.started:
            return []
        self._forget_those_in(world.plan)
        there = {agent.index for agent in world.agents if not agent.gone}
        now, found = time.monotonic(), []
        for number, away in self._away.items():
            if number not in there and now >= away.due_at:
                away.due_at = now + away.delay_s
                away.delay_s = min(2 * away.delay_s, _LONGEST_S)
                found.append(away.node)
        return found

    def ready(self, world: World) -> list[NodePlan]:
        """Return the nodes that stand by in an attempt, spares first."""
        known = {node.number: node for node in world.plan.spares}
        known |= {number: away.node for number, away in self._away.items()}
        standing = [a.index for a in world.agents if a.standby and a.joined and a.usable]
        spares = {node.number for node in world.plan.spares}
        found = sorted(standing, key=lambda number: (number not in spares, number))
        return [known[number] for number in found if number in known]

    def is_back(self, number: int) -> bool:
        """Return whether a node that has joined was lost before."""
        if number not in self._away:
            return False
        self._away[number].delay_s = _FIRST_TRY_S
        self._away[number].due_at = 0.0  # in the next attempt at once
        return True

    def may_grow(self, world: World) -> bool:
        """Return whether the attempt is to be stopped for nodes that have come back."""
        plan = world.plan
        back = {node.number for node in self.ready(world)} - {node.number for node in plan.spares}
        return plan.regrow and not world.stopping and plan.nnodes < plan.max_nodes and bool(back)

    def _forget_those_in(self, plan: LaunchPlan) -> None:
        for node in (*plan.nodes, *plan.spares):
            self._away.pop(node.number, None)

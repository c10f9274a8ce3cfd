"""What a run does when nodes come back or are told to end, and when a checkpoint is there."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable
from typing import Any

from distrun.failures import PREEMPTED, STOP
from distrun.signals import FORWARDED
from distrun.supervise.agents import Agent
from distrun.supervise.standby import Standby
from distrun.supervise.world import World


class NodeNews:
    """Acts on the news of the nodes of a run.

    Args:
        standby: The nodes without ranks.
        tell: Sends an event to all who listen.
        stop: Stops the run because of a signal; called with the reason.
    """

    def __init__(
        self, standby: Standby, tell: Callable[..., None], stop: Callable[[str], None]
    ) -> None:
        self._standby, self._tell, self._stop = standby, tell, stop
        self._forwarded: set[int] = set()
        self._told_of_grace = False

    def take(self, world: World, agent: Agent, event: dict[str, Any]) -> None:
        """Act on an event of an agent that its attempt has handled."""
        came = event["event"] == "node_joined" and agent.standby
        if came and self._standby.is_back(agent.index):
            self._tell("node_back", node=agent.index, host=agent.host, regrow=world.plan.regrow)
        elif event["event"] == "milestone" and event["what"] == "saved":
            self._compare_with_grace(world)
            if self._standby.may_grow(world):
                world.regrowing = True
                self._make_room(world, "nodes have come back")
        elif event["event"] == "node_signalled":
            self._on_signal(world, agent, event["signal"])

    def _make_room(self, world: World, reason: str) -> None:
        """Stop an attempt whose ranks are to go on with other nodes."""
        self._tell("stopping", reason=reason, grace_s=world.plan.grace_s)
        world.stop(signal.SIGTERM, world.plan.grace_s)

    def _on_signal(self, world: World, agent: Agent, signum: int) -> None:
        """Act on a signal that an agent was sent, as if the launcher had got it.

        Slurm signals all nodes: later ones say nothing new.
        """
        why = f"{signal.Signals(signum).name} at {agent.host}"
        if signum in FORWARDED:
            if signum not in self._forwarded:
                world.pass_on(signum, f" at {agent.host}")
            self._forwarded.add(signum)
        elif agent.standby or world.stopping:
            self._tell("notice", message=f"{agent.host} was told to end ({why})")
        elif world.plan.actions[PREEMPTED] != STOP and self._can_spare_one(world):
            world.leaving = agent
            self._make_room(world, why)
        else:
            self._stop(why)

    def _can_spare_one(self, world: World) -> bool:
        return world.plan.nnodes > world.plan.min_nodes or bool(self._standby.ready(world))

    def _compare_with_grace(self, world: World) -> None:
        """Say once if a checkpoint takes longer than the grace."""
        grace_s, save_s = world.plan.grace_s, world.steps.save_s
        if save_s > grace_s and not self._told_of_grace:
            self._told_of_grace = True
            message = f"a checkpoint takes {save_s:.0f} s, longer than the grace of {grace_s:g} s"
            need = f"--grace {math.ceil(1.5 * save_s)}s lets a stop save one"
            self._tell("notice", message=f"{message}: {need}")

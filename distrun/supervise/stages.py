"""The stages of an attempt that is not being stopped, and the time limit of each."""

from __future__ import annotations

import signal
import time

from distrun.plan.model import LaunchPlan
from distrun.supervise.agents import Agent, live_ranks
from distrun.supervise.attempt import Attempt
from distrun.supervise.hangs import GRACE_S
from distrun.supervise.joining import Joining
from distrun.supervise.others import OtherNodes

_ROUNDED_S = 1.0  # torchrun's own limit is in whole seconds


class Stages:
    """Watches one attempt: nodes join, ranks start, ranks run.

    Args:
        plan: Its plan.
    """

    def __init__(self, plan: LaunchPlan) -> None:
        self._joining = Joining()
        self._others = OtherNodes(plan.own_node, plan.supervised[0].host)

    def watch(self, world: Attempt, waited_s: float) -> None:
        """Do what is due.

        Args:
            world: The attempt.
            waited_s: Since it, or its ranks, were started.
        """
        if not world.started:
            self._joining.watch(world, waited_s)
            return
        late = without_ranks(world)
        if late and self.start_is_overdue(world):
            world.unstarted = late
            world.stop(signal.SIGTERM, 0.0)
        for name, news in self._others.news(waited_s, late, world.ended_well):
            world.tell(name, **news)
        for told in world.raised.overdue():
            world.tell("rank_stays", **told)
            world.stop_now()
        self._ask_stragglers(world)
        for name, news in world.hangs.on_time(world.agents, world.ends):
            world.tell(name, **news)
        if world.hangs.stopping:
            grace_s = min(world.plan.grace_s, GRACE_S)
            world.tell("stopping", reason="hang", grace_s=grace_s)
            world.stop(signal.SIGTERM, grace_s)

    def start_is_overdue(self, world: Attempt) -> bool:
        """Return whether all ranks should have started."""
        limit_s = max(1.0, world.plan.join_timeout_s - _ROUNDED_S)
        return world.started and time.monotonic() - world.started_at >= limit_s

    def _ask_stragglers(self, world: Attempt) -> None:
        live = live_ranks(world.agents)
        if world.stragglers.asks(live):
            world.where.ask(world.agents, world.where.of_stragglers)
        if answers := world.where.of_stragglers.answers(live):
            world.tell("stragglers", **world.stragglers.news(answers))


def without_ranks(world: Attempt) -> list[Agent]:
    """Return the agents whose ranks have not all been started."""
    return [a for a in world.active if not a.begun and a not in world.spared]

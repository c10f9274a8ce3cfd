"""What is known of one attempt, and how it is stopped."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from distrun.diagnose.verdict import RankEnd
from distrun.plan.model import LaunchPlan, NodePlan
from distrun.signals import SAVE
from distrun.supervise.agents import Agent
from distrun.supervise.hangs import Hangs
from distrun.supervise.raised import RaisedRanks
from distrun.supervise.steps import Steps
from distrun.supervise.stragglers import Stragglers
from distrun.supervise.whereabouts import Whereabouts

OVERTIME_S = 5.0
"""How long after the ranks' grace an agent is killed."""


@dataclass
class Attempt:
    """The agents of one attempt and their states."""

    plan: LaunchPlan
    attempt: int
    restarts: int
    """How many earlier attempts crashed or lost a node: not those that only lost a port."""
    agents: list[Agent]
    tell: Callable[..., None]
    """Sends an event to all who listen."""
    reading_rank: int | None = None
    """The rank that has the terminal."""
    ends: list[RankEnd] = field(default_factory=list)
    engine_errors: list[tuple[Agent, str, str]] = field(default_factory=list)
    lost: list[Agent] = field(default_factory=list)
    missing: list[Agent] = field(default_factory=list)
    """Agents that did not join in time, so that the world could not start."""
    spared: list[Agent] = field(default_factory=list)
    """Agents that an elastic world started without."""
    start_error: str = ""
    """Why an agent, or its ranks, could not be started."""
    unstarted: list[Agent] = field(default_factory=list)
    """Agents that had joined, and whose ranks did not start in time."""
    started: bool = False
    stopping: bool = False
    released: bool = False
    """Its ranks have ended, and the agents were told to exit."""
    clean: bool = False
    """All ranks had ended by themselves then."""
    regrowing: bool = False
    """It is stopped so that nodes that have come back get ranks."""
    asked_by: str = ""
    """The signal that was passed on to the ranks, and may have made them leave."""
    leaving: Agent | None = None
    """The node that was told to end, for which it is stopped."""
    steps: Steps = field(default_factory=Steps)
    where: Whereabouts = field(default_factory=Whereabouts)
    stragglers: Stragglers = field(init=False)
    hangs: Hangs = field(init=False)
    known: dict[int, NodePlan] = field(init=False)
    """The nodes of its first plan, spares included, by number."""
    raised: RaisedRanks = field(default_factory=RaisedRanks)
    started_at: float = field(default_factory=time.monotonic)
    stop_at: float | None = None
    kill_agents_at: float | None = None

    def __post_init__(self) -> None:
        self.known = {node.number: node for node in (*self.plan.nodes, *self.plan.spares)}
        self.stragglers = Stragglers(self.plan.straggler_notice_s)
        self.hangs = Hangs(self.plan, self.where)

    @property
    def active(self) -> list[Agent]:
        """The agents that have ranks, or are to have them."""
        return [agent for agent in self.agents if not agent.standby]

    @property
    def finished(self) -> bool:
        """Whether no agent is left."""
        return all(agent.gone for agent in self.agents)

    @property
    def succeeded(self) -> bool:
        """Whether every rank ended with 0, not because it was stopped, and nothing else failed."""
        wrong = self.lost or self.engine_errors or self.never_began or self.hangs.stopping
        return self.started and self.ended_well and not wrong

    @property
    def ended_well(self) -> bool:
        """Whether every rank has ended with 0."""
        ended = len(self.ends) == self.plan.supervised_ranks
        return ended and not any(end.failed for end in self.ends)

    @property
    def has_failed(self) -> bool:
        """Whether a node was lost, or a rank ended otherwise than it was asked to."""
        codes = (0, 128 + signal.SIGTERM)
        bad = any(end.failed and end.exit_code not in codes for end in self.ends)
        return bool(
            self.lost or self.engine_errors or self.never_began or self.hangs.stopping or bad
        )

    @property
    def is_done(self) -> bool:
        """Whether its ranks have done what they were to do, or have left as they were asked to.

        Ranks that have made room for other nodes are to go on.
        """
        left = self.steps.preempted is not None and not self.has_failed
        ended = self.succeeded or left
        moved = self.regrowing or self.leaving is not None
        return ended and (not moved or self.clean)

    @property
    def nodes_without_ranks(self) -> list[NodePlan]:
        """The nodes that were lost, or did not come."""
        gone = {agent.index for agent in (*self.lost, *self.spared, *self.missing)}
        return [node for number, node in self.known.items() if number in gone]

    @property
    def never_began(self) -> bool:
        """Whether not all ranks started, and another attempt would not help."""
        return bool(self.missing or self.unstarted or self.start_error)

    @property
    def port_was_taken(self) -> bool:
        """Whether another process took the rendezvous port between the plan and the bind."""
        return any("EADDRINUSE" in message for _, _, message in self.engine_errors)

    def stop(self, signum: int, grace_s: float, overtime_s: float = OVERTIME_S) -> None:
        """Send every rank the signal, and kill those that do not end within the grace."""
        self.stopping = True
        self.stop_at = None
        kill_at = time.monotonic() + grace_s + overtime_s
        self.kill_agents_at = min(self.kill_agents_at or kill_at, kill_at)
        for agent in self.agents:
            if agent.joined:
                agent.send("stop", signal=signum, grace_s=grace_s)
            else:  # it has no ranks that could save anything
                agent.give_up()

    def stop_now(self) -> None:
        """Stop at the next look."""
        self.stop_at = time.monotonic()

    def kill(self) -> None:
        """Kill every rank now."""
        self.stopping = True
        self.stop_at = None
        self.kill_agents_at = time.monotonic() + 1.0
        for agent in self.agents:
            agent.send("kill")

    def pass_on(self, signum: int, where: str = "") -> None:
        """Have the ranks that handle a signal get it."""
        self.asked_by = signal.Signals(signum).name + where if signum != SAVE else self.asked_by
        self.send_all("signal", signal=signum)

    def send_all(self, command: str, **fields: Any) -> None:
        """Send a command to every agent."""
        for agent in self.agents:
            agent.send(command, **fields)

    def cannot_start(self, node: NodePlan, error: OSError) -> None:
        """Note that an agent's process could not be made, and stop."""
        self.start_error = f"the agent of {node.host} cannot be started: {error}"
        self.stop(signal.SIGTERM, 0.0)

"""One attempt: the agents of all nodes, from their start to the last process.

It has no loop of its own: `Supervisor` passes events and the time to it.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from distrun.diagnose.verdict import RankEnd
from distrun.plan.model import LaunchPlan, NodePlan
from distrun.supervise.agents import Agent, live_ranks
from distrun.supervise.hangs import GRACE_S, Hangs
from distrun.supervise.joining import Joining
from distrun.supervise.others import OtherNodes
from distrun.supervise.raised import RaisedRanks
from distrun.supervise.stragglers import Stragglers
from distrun.supervise.whereabouts import Whereabouts

SETTLE_S = 0.2
"""From the first failure to SIGTERM: ranks with the same error can report it."""
_OVERTIME_S = 5.0
"""How long after the ranks' grace an agent is killed."""
_LOOK_S = 0.5
_ROUNDED_S = 1.0  # torchrun's own limit is in whole seconds


@dataclass
class World:
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
    where: Whereabouts = field(default_factory=Whereabouts)
    stragglers: Stragglers = field(init=False)
    hangs: Hangs = field(init=False)
    _joining: Joining = field(init=False)
    _others: OtherNodes = field(init=False)
    _raised: RaisedRanks = field(default_factory=RaisedRanks)
    _started_at: float = field(default_factory=time.monotonic)
    _stop_at: float | None = None
    _kill_agents_at: float | None = None

    def __post_init__(self) -> None:
        self.stragglers = Stragglers(self.plan.straggler_notice_s)
        self.hangs = Hangs(self.plan, self.where)
        self._joining = Joining()
        self._others = OtherNodes(self.plan.own_node, self.plan.supervised[0].host)

    @property
    def finished(self) -> bool:
        """Whether no agent is left."""
        return all(agent.gone for agent in self.agents)

    @property
    def succeeded(self) -> bool:
        """Whether every rank ended with 0, not because it was stopped, and nothing else failed."""
        wrong = self.lost or self.engine_errors or self.never_began or self.hangs.stopping
        return self.started and self._ended_well and not wrong

    @property
    def _ended_well(self) -> bool:
        ended = len(self.ends) == self.plan.supervised_ranks
        return ended and not any(end.failed for end in self.ends)

    @property
    def never_began(self) -> bool:
        """Whether not all ranks started, and another attempt would not help."""
        return bool(self.missing or self.unstarted or self.start_error)

    @property
    def port_was_taken(self) -> bool:
        """Whether another process took the rendezvous port between the plan and the bind."""
        return any("EADDRINUSE" in message for _, _, message in self.engine_errors)

    # --- events ----------------------------------------------------------------------

    def on_event(self, agent: Agent, event: dict[str, Any]) -> None:
        """React to one event of an agent (its output excepted)."""
        event = {**event}  # equal ones may be one object
        name = event.pop("event", "")
        if handler := _HANDLERS.get(name):
            handler(self, agent, event)
        elif name in _TOLD_AS_IT_IS:
            self.tell(name, node=agent.index, **event)
        else:
            self.tell("notice", message=f"{agent.host} says {name!r}, an unknown event")

    def _on_node_stage(self, agent: Agent, event: dict[str, Any]) -> None:
        agent.stage = event["stage"]
        agent.pid = event.get("pid", agent.pid)
        self.tell("node_stage", node=agent.index, host=agent.host, **event)

    def _on_notice(self, _: Agent, event: dict[str, Any]) -> None:
        self.tell("notice", **event)

    def _on_node_joined(self, agent: Agent, event: dict[str, Any]) -> None:
        agent.joined, agent.stage, agent.free_port = True, "joined", event["free_port"]
        joined = sum(a.joined for a in self.agents)
        of = len(self.plan.supervised)
        self.tell("node_joined", node=agent.index, host=agent.host, joined=joined, of=of)
        if joined == of and not self.stopping:
            self._start(self.agents)

    def _start(self, agents: list[Agent]) -> None:
        """Assign a node rank to every joined node and start the ranks."""
        self.started = True
        if self.attempt and not self.plan.master_port_is_users:  # the first port was left at an end
            self.plan = replace(self.plan, master_port=agents[0].free_port)
        self._started_at = time.monotonic()
        for node_rank, agent in enumerate(agents, self.plan.own_node or 0):
            agent.node_rank = node_rank
            order = self.plan.start_order(node_rank, agent.index)
            agent.send("start", restarts=self.restarts, **order)
        self.tell(
            "world_started",
            attempt=self.attempt,
            nnodes=self.plan.nnodes,
            world_size=self.plan.world_size,
            supervised_ranks=self.plan.supervised_ranks,
            run_id=self.plan.run_id,
        )

    def _on_rank_started(self, agent: Agent, event: dict[str, Any]) -> None:
        agent.ranks[event["rank"]] = event["pid"]
        agent.begun = len(agent.ranks) == self.plan.nproc_per_node or agent.begun
        self.hangs.began(event["rank"])
        self.tell("rank_started", node=agent.index, **event)

    def _on_rank_raised(self, agent: Agent, event: dict[str, Any]) -> None:
        if not self.stopping:
            self._raised.add(event["rank"], event["report"])
            self.tell("rank_raised", node=agent.index, **event)

    def _on_rank_ended(self, agent: Agent, event: dict[str, Any]) -> None:
        agent.ranks.pop(event["rank"], None)
        agent.begun = True
        self._raised.ended(event["rank"])
        self.stragglers.ended(event["rank"])
        self.hangs.ended(event["rank"])
        at = event["monotonic"] if self.plan.has_one_clock else time.monotonic()
        end = RankEnd(
            node=agent.index,
            host=agent.host,
            at=at,
            after_stop=self.stopping and not event["left_by_itself"],
            could_read=event["rank"] == self.reading_rank,
            **{name: event[name] for name in _OF_END},
        )
        self.ends.append(end)
        self.tell(
            "rank_ended",
            node=agent.index,
            rank=end.rank,
            exit_code=end.exit_code,
            victim=end.is_victim,
            report=end.report,
        )
        if end.failed and self._stop_at is None and not self.stopping:
            self._stop_at = time.monotonic() + SETTLE_S

    def _on_node_succeeded(self, agent: Agent, _: dict[str, Any]) -> None:
        agent.succeeded = True
        if all(a.succeeded for a in self.agents if not a.gone and a not in self.spared):
            self._release()

    def _on_node_stopped(self, agent: Agent, _: dict[str, Any]) -> None:
        agent.stopped = True
        if all(a.stopped for a in self.agents if not a.gone):
            self._release()

    def _on_engine_failed(self, agent: Agent, event: dict[str, Any]) -> None:
        if not self.stopping:
            # Its rendezvous has the same time limit as the supervisor.
            if self._start_is_overdue() and (late := self._without_ranks()):
                self.unstarted = late
            else:
                self.engine_errors.append((agent, event["type"], event["message"]))
            self.stop(signal.SIGTERM, self.plan.grace_s)

    def _on_start_failed(self, agent: Agent, event: dict[str, Any]) -> None:
        agent.killed = True
        self.start_error = f"{event['what']} on {agent.host}: {event['why']}"
        if not self.stopping:
            self.stop(signal.SIGTERM, 0.0)

    def _on_node_broken(self, agent: Agent, event: dict[str, Any]) -> None:
        agent.why_lost = f"{agent.host}: {event['why']}"
        self._lose(agent)
        if not self.stopping:
            self.stop(signal.SIGTERM, self.plan.grace_s)

    def _on_stacks(self, agent: Agent, event: dict[str, Any]) -> None:
        self.where.came(event)
        if self.where.is_stopping:
            self.hangs.stopped(event, agent.host)

    def _on_looked(self, _: Agent, event: dict[str, Any]) -> None:
        self.hangs.looked(event)

    def _on_swept(self, agent: Agent, _: dict[str, Any]) -> None:
        agent.swept = True

    def on_gone(self, agent: Agent) -> None:
        """The agent's pipe has ended."""
        agent.gone = True
        if agent.swept or agent in self.spared:
            return
        agent.kill()  # an agent without its pipe is useless
        failed = any(agent is a for a, _, _ in self.engine_errors)
        if not (self.released or agent.killed or failed or agent in self.missing):
            self._lose(agent)
        if not self.stopping:
            self.stop(signal.SIGTERM, self.plan.grace_s)
        elif all(a.stopped or a.gone for a in self.agents):
            self._release()

    def _lose(self, agent: Agent) -> None:
        if agent not in self.lost:
            self.lost.append(agent)
            ranks = sorted(agent.ranks)
            why = agent.why_lost
            self.tell("node_lost", node=agent.index, host=agent.host, ranks=ranks, why=why)

    # --- what the supervisor decides --------------------------------------------------

    def stop(self, signum: int, grace_s: float, overtime_s: float = _OVERTIME_S) -> None:
        """Send every rank the signal, and kill those that do not end within the grace."""
        self.stopping = True
        self._stop_at = None
        kill_at = time.monotonic() + grace_s + overtime_s
        self._kill_agents_at = min(self._kill_agents_at or kill_at, kill_at)
        for agent in self.agents:
            if agent.joined:
                agent.send("stop", signal=signum, grace_s=grace_s)
            else:  # it has no ranks that could save anything
                self._kill_agent(agent)

    def kill(self) -> None:
        """Kill every rank now."""
        self.stopping = True
        self._stop_at = None
        self._kill_agents_at = time.monotonic() + 1.0
        for agent in self.agents:
            agent.send("kill")

    def send_all(self, command: str, **fields: Any) -> None:
        """Send a command to every agent."""
        for agent in self.agents:
            agent.send(command, **fields)

    def _kill_agent(self, agent: Agent) -> None:
        agent.killed = True
        agent.kill()

    def cannot_start(self, node: NodePlan, error: OSError) -> None:
        """Note that an agent's process could not be made, and stop."""
        self.start_error = f"the agent of {node.host} cannot be started: {error}"
        self.stop(signal.SIGTERM, 0.0)

    def _release(self) -> None:
        if not self.released:
            self.released, self.clean = True, not self.stopping
        linger_s = 0.0 if self.stopping else self.plan.linger_s
        self._kill_agents_at = time.monotonic() + linger_s + _OVERTIME_S
        self.send_all("exit", linger_s=linger_s)

    # --- time ------------------------------------------------------------------------

    def on_time(self) -> float:
        """Do what is due; return after how many seconds to look again."""
        now = time.monotonic()
        if self._stop_at is not None and now >= self._stop_at:
            if live_ranks(self.agents):  # one of them may be awaited
                self.where.ask_before_stop(self.agents)
            self.stop(signal.SIGTERM, self.plan.grace_s)
        if self._kill_agents_at is not None and now >= self._kill_agents_at:
            self._kill_agents_at = None
            for agent in self.agents:
                if not agent.gone:
                    self._kill_agent(agent)
        for agent in self.agents:
            if silent := agent.listen():
                self.tell("notice", message=silent)
        if not self.stopping:
            self._watch(now - self._started_at)
        writing = [agent for agent in self.agents if agent.talk.flush()]
        times = (self._stop_at, self._kill_agents_at, *self._raised.due())
        due = [t - now for t in times if t is not None]
        if not self.started:
            due.append(0.2)
        if writing:
            due.append(0.02)
        return max(0.0, min([*due, _LOOK_S]))

    def _watch(self, waited_s: float) -> None:
        """Apply the time limit of each stage of a world that is not being stopped."""
        if not self.started:
            self._watch_joining(waited_s)
            return
        if self._start_is_overdue() and (late := self._without_ranks()):
            self.unstarted = late
            self.stop(signal.SIGTERM, 0.0)
        for name, news in self._others.news(waited_s, self._without_ranks(), self._ended_well):
            self.tell(name, **news)
        for told in self._raised.overdue():
            self.tell("rank_stays", **told)
            self._stop_at = time.monotonic()
        live = live_ranks(self.agents)
        if self.stragglers.asks(live):
            self.where.ask(self.agents, self.where.of_stragglers)
        if answers := self.where.of_stragglers.answers(live):
            self.tell("stragglers", **self.stragglers.news(answers))
        for name, news in self.hangs.on_time(self.agents, self.ends):
            self.tell(name, **news)
        if self.hangs.stopping:
            grace_s = min(self.plan.grace_s, GRACE_S)
            self.tell("stopping", reason="hang", grace_s=grace_s)
            self.stop(signal.SIGTERM, grace_s)

    def _start_is_overdue(self) -> bool:
        limit_s = max(1.0, self.plan.join_timeout_s - _ROUNDED_S)
        return self.started and time.monotonic() - self._started_at >= limit_s

    def _without_ranks(self) -> list[Agent]:
        return [a for a in self.agents if not a.begun and a not in self.spared]

    def _watch_joining(self, waited_s: float) -> None:
        if waited_s >= self.plan.join_timeout_s:
            self._join_timeout([agent for agent in self.agents if not agent.joined])
        elif waiting := self._joining.news(waited_s, self.agents):
            self.tell("waiting", **waiting)

    def _join_timeout(self, absent: list[Agent]) -> None:
        for agent in absent:
            self._kill_agent(agent)
        present = [agent for agent in self.agents if agent.joined]
        if len(present) < self.plan.min_nodes:
            self.missing = absent
            self.stop(signal.SIGTERM, 0.0)
            return
        self.spared = absent
        nodes: list[NodePlan] = [self.plan.nodes[self.agents.index(a)] for a in present]
        self.plan = self.plan.next_attempt(self.attempt, nodes)
        self.tell("starting_without", missing=[agent.host for agent in absent], nnodes=len(present))
        self._start(present)


_OF_END = ("rank", "exit_code", "code_known", "report", "last_words", "stacks", "stacks_printed")
_TOLD_AS_IT_IS = ("lingering", "killed", "signal_forwarded")
_HANDLERS: Mapping[str, Callable[[World, Agent, dict[str, Any]], None]] = {
    "node_stage": World._on_node_stage,
    "notice": World._on_notice,
    "node_joined": World._on_node_joined,
    "rank_started": World._on_rank_started,
    "rank_raised": World._on_rank_raised,
    "rank_ended": World._on_rank_ended,
    "node_succeeded": World._on_node_succeeded,
    "node_stopped": World._on_node_stopped,
    "engine_failed": World._on_engine_failed,
    "start_failed": World._on_start_failed,
    "node_broken": World._on_node_broken,
    "stacks": World._on_stacks,
    "looked": World._on_looked,
    "swept": World._on_swept,
}
"""By the name of the event."""

"""One attempt, from the start of its agents to the last process: events, and the time.

It has no loop of its own: `Supervisor` passes both to it.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping
from typing import Any

from distrun.diagnose.verdict import RankEnd
from distrun.supervise.agents import Agent, live_ranks
from distrun.supervise.attempt import OVERTIME_S, Attempt
from distrun.supervise.joining import start
from distrun.supervise.stages import Stages, without_ranks

SETTLE_S = 0.2
"""From the first failure to SIGTERM: ranks with the same error can report it."""
_LOOK_S = 0.5


class World(Attempt):
    """An attempt that reacts to what its agents say."""

    def __post_init__(self) -> None:
        """Watch its stages."""
        super().__post_init__()
        self._stages = Stages(self.plan)

    # --- events ----------------------------------------------------------------------

    def on_event(self, agent: Agent, event: dict[str, Any]) -> None:
        """React to one event of an agent (its output excepted)."""
        event = {**event}  # equal ones may be one object
        name = event.pop("event", "")
        if "monotonic" in event:
            agent.heard_clock(event["monotonic"])
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
        if agent.standby:
            self.tell("node_stands_by", node=agent.index, host=agent.host)
            return
        joined = sum(a.joined for a in self.active)
        of = len(self.plan.supervised)
        self.tell("node_joined", node=agent.index, host=agent.host, joined=joined, of=of)
        if joined == of and not self.stopping:
            start(self, self.active)

    def _on_rank_started(self, agent: Agent, event: dict[str, Any]) -> None:
        agent.ranks[event["rank"]] = event["pid"]
        agent.begun = len(agent.ranks) == self.plan.nproc_per_node or agent.begun
        self.hangs.began(event["rank"])
        self.tell("rank_started", node=agent.index, **event)

    def _on_rank_raised(self, agent: Agent, event: dict[str, Any]) -> None:
        if not self.stopping:
            self.raised.add(event["rank"], event["report"])
            self.tell("rank_raised", node=agent.index, **event)

    def _on_rank_ended(self, agent: Agent, event: dict[str, Any]) -> None:
        agent.ranks.pop(event["rank"], None)
        agent.begun = True
        self.raised.ended(event["rank"])
        self.stragglers.ended(event["rank"])
        self.hangs.ended(event["rank"])
        at = event["monotonic"] + (0.0 if self.plan.has_one_clock else agent.clock_offset_s)
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
            host=agent.host,
            rank=end.rank,
            exit_code=end.exit_code,
            victim=end.is_victim,
            report=end.report,
        )
        if end.failed and self.stop_at is None and not self.stopping:
            self.stop_at = time.monotonic() + SETTLE_S

    def _on_node_succeeded(self, agent: Agent, _: dict[str, Any]) -> None:
        agent.succeeded = True
        if all(a.succeeded for a in self.active if not a.gone and a not in self.spared):
            self._release()

    def _on_node_stopped(self, agent: Agent, _: dict[str, Any]) -> None:
        agent.stopped = True
        if all(a.stopped for a in self.agents if not a.gone):
            self._release()

    def _on_engine_failed(self, agent: Agent, event: dict[str, Any]) -> None:
        if not self.stopping:
            # Its rendezvous has the same time limit as the supervisor.
            if self._stages.start_is_overdue(self) and (late := without_ranks(self)):
                self.unstarted = late
            else:
                self.engine_errors.append((agent, event["type"], event["message"]))
            self.stop(signal.SIGTERM, self.plan.grace_s)

    def _on_start_failed(self, agent: Agent, event: dict[str, Any]) -> None:
        agent.killed = True
        if agent.standby:
            return
        self.start_error = f"{event['what']} on {agent.host}: {event['why']}"
        if not self.stopping:
            self.stop(signal.SIGTERM, 0.0)

    def _on_node_broken(self, agent: Agent, event: dict[str, Any]) -> None:
        agent.why_lost = f"{agent.host}: {event['why']}"
        if agent.standby:
            return
        self._lose(agent)
        if not self.stopping:
            self.stop(signal.SIGTERM, self.plan.grace_s)

    def _on_stacks(self, agent: Agent, event: dict[str, Any]) -> None:
        self.where.came(event)
        if self.where.is_stopping:
            self.hangs.stopped(event, agent.host)

    def _on_looked(self, agent: Agent, event: dict[str, Any]) -> None:
        self.hangs.looked(event, 0.0 if self.plan.has_one_clock else agent.clock_offset_s)

    def _on_collectives(self, _: Agent, event: dict[str, Any]) -> None:
        self.hangs.raised(event["rank"], event["answer"])

    def _on_swept(self, agent: Agent, _: dict[str, Any]) -> None:
        agent.swept = True

    def _on_node_signalled(self, agent: Agent, event: dict[str, Any]) -> None:
        self.tell("node_signalled", node=agent.index, **event)

    def _on_milestone(self, _: Agent, event: dict[str, Any]) -> None:
        self.steps.on_milestone(event)
        self.tell("milestone", **event)

    def on_gone(self, agent: Agent) -> None:
        """The agent's pipe has ended."""
        agent.gone = True
        if agent.swept or agent in self.spared:
            return
        agent.kill()  # an agent without its pipe is useless
        failed = any(agent is a for a, _, _ in self.engine_errors)
        known = self.released or agent.killed or failed or agent in self.missing
        if agent.standby:
            if agent.joined and not (known or self.stopping):
                self.tell("spare_lost", node=agent.index, host=agent.host, why=agent.why_lost)
        elif not known:
            self._lose(agent)
        if not (self.stopping or agent.standby):
            self.stop(signal.SIGTERM, self.plan.grace_s)
        elif self.stopping and all(a.stopped or a.gone for a in self.agents):
            self._release()

    def _lose(self, agent: Agent) -> None:
        if agent not in self.lost:
            self.lost.append(agent)
            ranks = sorted(agent.ranks)
            why = agent.why_lost
            self.tell("node_lost", node=agent.index, host=agent.host, ranks=ranks, why=why)

    def _release(self) -> None:
        if not self.released:
            self.released, self.clean = True, not self.stopping
        linger_s = 0.0 if self.stopping else self.plan.linger_s
        self.kill_agents_at = time.monotonic() + linger_s + OVERTIME_S
        self.send_all("exit", linger_s=linger_s)

    # --- time ------------------------------------------------------------------------

    def on_time(self) -> float:
        """Do what is due; return after how many seconds to look again."""
        now = time.monotonic()
        if self.stop_at is not None and now >= self.stop_at:
            if live_ranks(self.agents):  # one of them may be awaited
                self.where.ask_before_stop(self.agents)
            self.stop(signal.SIGTERM, self.plan.grace_s)
        if self.kill_agents_at is not None and now >= self.kill_agents_at:
            self.kill_agents_at = None
            for agent in self.agents:
                if not agent.gone:
                    agent.give_up()
        for agent in self.agents:
            if silent := agent.listen():
                self.tell("notice", message=silent)
        if not self.stopping:
            self._stages.watch(self, now - self.started_at)
        writing = [agent for agent in self.agents if agent.talk.flush()]
        times = (self.stop_at, self.kill_agents_at, *self.raised.due())
        due = [t - now for t in times if t is not None]
        if not self.started:
            due.append(0.2)
        if writing:
            due.append(0.02)
        return max(0.0, min([*due, _LOOK_S]))


_OF_END = (
    *("rank", "exit_code", "code_known", "report", "last_words", "stacks", "stacks_printed"),
    "out_of_memory",
)
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
    "collectives": World._on_collectives,
    "swept": World._on_swept,
    "milestone": World._on_milestone,
    "node_signalled": World._on_node_signalled,
}
"""By the name of the event."""

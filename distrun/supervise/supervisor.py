"""Supervises one run from the first agent to the last process, in a process of its own.

It imports neither torch nor pydantic, to stay small: it may run for weeks.
"""

from __future__ import annotations

import os
import selectors
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from distrun.nodes.handed import Handed
from distrun.plan.model import LaunchPlan, NodePlan
from distrun.processes import adopt_orphans, reap_children, sweep
from distrun.runs import record
from distrun.runs.directory import RunDirectory
from distrun.runs.record import RunRecord
from distrun.signals import ENDING, FORWARDED, SAVE, STACKS, STOPPING, passed_on, repeats
from distrun.streams import Streams
from distrun.supervise.agents import Agent, live_ranks
from distrun.supervise.beat import Beat
from distrun.supervise.ending import Stop, describe
from distrun.supervise.evidence import write_answers, write_evidence
from distrun.supervise.feed import Feed
from distrun.supervise.files import AppendFile
from distrun.supervise.history import History
from distrun.supervise.logs import Logs, joined
from distrun.supervise.metrics_file import MetricsFile
from distrun.supervise.node_news import NodeNews
from distrun.supervise.nodes_file import NodesFile
from distrun.supervise.observer import Observer
from distrun.supervise.recovery import Recovery
from distrun.supervise.standby import Standby
from distrun.supervise.start_report import write_report
from distrun.supervise.starts import Starts
from distrun.supervise.suspects import Suspects
from distrun.supervise.whereabouts import told
from distrun.supervise.world import World

_FAREWELL_S = 2.0
_LOOK_S = 0.05
"""How soon after an event to look at what is due."""


@dataclass(frozen=True)
class Order:
    """What the client asks for, on the first line of the commands pipe."""

    plan: LaunchPlan
    run: RunDirectory
    record: RunRecord
    environ: dict[str, str]
    detached: bool
    streams: Streams
    handed: Mapping[str, Handed] = field(default_factory=dict)
    """Agents that have been started on other machines, by the node's name."""


class Supervisor:
    """One run."""

    def __init__(self, order: Order, observer: Observer) -> None:
        self._order = order
        self._run = order.run
        self._observer = observer
        self._events = AppendFile(order.run.events, self._complain)
        self._metrics = MetricsFile(
            AppendFile(order.run.metrics, self._complain),
            lambda message: self._tell("notice", message=message),
        )
        self._logs = Logs(order.run, order.plan.log_max_nbytes, self._complain)
        self._record = order.record
        self._selector = selectors.DefaultSelector()
        self._feed = self._feed_elsewhere()
        self._beat = Beat()
        self._beat.add(observer.events_fd)
        self._stop: Stop | None = None
        """Why the run is stopped before its end; the first reason counts."""
        self._first_signal: tuple[int, float] | None = None
        """The first signal to end it, and when it came."""
        self._started_at = time.monotonic()
        self._limit_at = (
            self._started_at + order.plan.time_limit_s if order.plan.time_limit_s else None
        )
        self._world: World
        self._starts = Starts(
            order.run.run_id, order.run.path, order.environ, order.streams, order.handed
        )
        self._history = History([*order.record.history])
        self._standby = Standby()
        self._news = NodeNews(self._standby, self._tell, self._on_signal_elsewhere)
        self._nodes_file = NodesFile(order.run, self._complain)
        self._suspects = Suspects(self._selector, self._starts.environ, self._on_suspect)

    def _feed_elsewhere(self) -> Feed | None:
        """Return what passes the launcher's stdin on, if a rank elsewhere is to read it."""
        fd = self._order.streams.handed_fds[0]
        if fd is None or not any(node.command for node in self._order.plan.nodes):
            return None
        return Feed(fd, self._selector)

    def run(self) -> int:
        """Run it; returns the exit code of the command."""
        adopt_orphans()
        self._starts.allow_more_files(self._order.plan)
        self._watch_signals()
        self._selector.register(self._observer.commands_fd, selectors.EVENT_READ, self._on_commands)
        # A job that was put back in the queue goes on in the record of its earlier attempts.
        recovery = Recovery(self._order.record.attempts - 1, self._tell)
        plan: LaunchPlan | None = self._order.plan
        while plan is not None:
            self._write_record(replace(self._record, attempts=recovery.restarts + 1))
            self._history.begin()
            self._run_world(plan, recovery.attempt, recovery.restarts)
            plan = self._after(recovery)
        return self._end(recovery.restarts + 1)

    def _after(self, recovery: Recovery) -> LaunchPlan | None:
        """Record how an attempt has ended; return the plan of the next one, if there is one."""
        world = self._world
        is_over = bool(self._stop) or world.is_done
        failure = None if is_over else recovery.take(world)
        if waits := world.hangs.waits.told():
            self._tell("waits", **waits)
        outcome = describe(world, self._stop).outcome if is_over else ""
        told = self._history.end(world, failure, outcome)
        self._tell("attempt_ended", **told)
        self._record = replace(self._record, history=[*self._history.attempts])
        if is_over:
            return None
        standing = self._standby.ready(world)
        following = recovery.next_plan(world, standing)
        self._standby.lost(world.nodes_without_ranks)
        self._standby.put_out(recovery.out)
        for node in self._nodes_file.add(world, failure, recovery.out):
            if following is not None:
                self._suspects.check(node, world.plan)
        return following

    def _on_suspect(self, node: NodePlan, check: Mapping[str, Any]) -> None:
        self._nodes_file.checked(node.number, check)
        self._tell("suspect_checked", node=node.number, host=node.host, **check)

    # --- one world ---------------------------------------------------------------------

    def _run_world(self, plan: LaunchPlan, attempt: int, restarts: int) -> None:
        reads = plan.debug_rank
        if plan.world_size == 1 and self._order.streams.handed_fds[0] is not None:
            reads = 0
        self._world = World(plan, attempt, restarts, [], self._tell, reads)
        if attempt:
            self._logs.mark(f"attempt {attempt + 1} begins", {n.number for n in plan.nodes})
        self._tell("attempt_started", attempt=attempt, nnodes=len(plan.supervised))
        self._starts.begin(plan)
        self._start_agents()
        if attempt == self._order.record.attempts - 1:  # now, while the agents import torch
            home = Path() if plan.program.module else Path(plan.program.script).parent
            self._write_record(replace(self._record, git=record.git_revision(home)))
        self._loop()
        self._tell_stacks()  # to whoever asked while the ranks ended
        if self._feed:
            self._feed.pause()
        for agent in self._world.agents:
            for fd in (agent.talk.messages_fd, agent.talk.words_fd):
                self._unregister(fd)
            self._beat.remove(agent.talk.commands_fd)
            agent.close()
        sweep(self._run.run_id, below=os.getpid())

    def _start_agents(self) -> None:
        """Start the agents of this attempt that can be started now."""
        world = self._world
        if world.stopping:
            return
        for node in (*self._starts.due(world.agents), *self._standby.due(world)):
            try:
                agent = self._starts.start(node)
            except OSError as error:
                if world.started:
                    continue  # a node that was lost: it is tried again
                world.cannot_start(node, error)
                return
            world.agents.append(agent)
            talk = agent.talk
            self._beat.add(talk.commands_fd)
            for fd, handler in ((talk.messages_fd, self._on_agent), (talk.words_fd, self._on_log)):
                self._selector.register(fd, selectors.EVENT_READ, lambda h=handler, a=agent: h(a))

    def _loop(self) -> None:
        for command in self._observer.early_commands():
            self._take_signal(command["signal"], command.get("why", ""))
        look_at = 0.0
        while not self._world.finished:
            if (now := time.monotonic()) >= look_at:  # not after each of many nodes' output
                look_at = now + self._world.on_time()
                self._tell_stacks()
                self._start_agents()  # of nodes that may have come back
            timeout = max(0.0, look_at - now)
            if (again := self._observer.flush()) is not None:
                timeout = min(timeout, again)
            if self._limit_at is not None:
                timeout = min(timeout, max(0.0, self._limit_at - time.monotonic()))
            for key, _ in self._selector.select(timeout):
                handler: Callable[[], None] = key.data
                handler()
                look_at = min(look_at, now + _LOOK_S)
            if self._limit_at is not None and time.monotonic() >= self._limit_at:
                self._limit_at = None
                self._on_time_limit()

    def _on_agent(self, agent: Agent) -> None:
        events = agent.talk.read()
        if events is None:
            self._unregister(agent.talk.messages_fd)
            reap_children()
            self._world.on_gone(agent)
            self._start_agents()
            return
        for event, data in joined(events):
            name = event.get("event")
            if name == "output":
                log = self._logs.of_rank(agent.index, event["rank"])
                log.write(event["stream"], data)
                self._world.hangs.printed(event["rank"])
                self._observer.ring()
            elif name == "metrics":
                self._metrics.take(event)
                self._world.steps.on_metrics(event["step"])
                self._world.hangs.printed(event["rank"])
                self._observer.tell(event)
            elif name == "system":
                self._metrics.take({**event, "node": agent.index})
                self._observer.tell({**event, "node": agent.index})
            elif name == "stdin_taken":
                if self._feed:
                    self._feed.taken(event["count"])
            else:
                if name == "rank_started":
                    self._on_rank_started(agent, event["rank"])
                self._world.on_event(agent, event)
                self._news.take(self._world, agent, event)
        self._start_agents()

    def _on_rank_started(self, agent: Agent, rank: int) -> None:
        log = self._logs.of_rank(agent.index, rank)
        log.create()
        if self._feed and rank == self._order.streams.handed_rank:
            self._feed.begin(agent)
        elif rank == self._order.plan.debug_rank:
            log.say("this rank has the terminal")

    def _on_log(self, agent: Agent) -> None:
        if data := agent.talk.read_words():
            self._logs.of_agent(agent.index).write(data)
        else:
            self._unregister(agent.talk.words_fd)

    def _unregister(self, fd: int) -> None:
        try:
            self._selector.unregister(fd)
        except KeyError:
            pass  # it has reached its end already

    # --- who decides: the clock, the client, signals -------------------------------------

    def _on_signal_elsewhere(self, why: str) -> None:
        self._stop_for(Stop("signal", signal.SIGTERM, why), signal.SIGTERM, why)

    def _on_time_limit(self) -> None:
        self._stop_for(Stop("time limit"), signal.SIGTERM, "time limit")

    def _on_commands(self) -> None:
        commands = self._observer.read_commands()
        if commands is None:
            self._unregister(self._observer.commands_fd)
            self._beat.remove(self._observer.events_fd)
            if not self._order.detached:
                self._stop_for(Stop("client lost"), signal.SIGTERM, "the launcher is gone")
            return
        for command in commands:
            self._take_signal(command["signal"], command.get("why", ""))

    def _stop_for(self, stop: Stop, signum: int, reason: str) -> None:
        """Stop the run, and collect where its ranks are. The first reason counts."""
        first = self._stop is None
        self._stop = self._stop or replace(stop, after_loss=bool(self._world.lost))
        grace_s = self._order.plan.grace_s
        if first and not self._world.stopping:
            self._tell("stopping", reason=reason, grace_s=grace_s)
            self._world.where.ask_before_stop(self._world.agents)
        if first or stop.signum is not None:  # the ranks get the signal in any case
            self._world.stop(signum, grace_s)

    def _watch_signals(self) -> None:
        read, write = os.pipe()
        os.set_blocking(read, False)
        os.set_blocking(write, False)
        own = filter(None, [STACKS, SAVE])
        for signum in (*STOPPING, *ENDING, *FORWARDED, *own, signal.SIGCHLD):
            # Signals that are ignored here (nohup, a shell's background job) stay so in the ranks.
            if signal.getsignal(signum) != signal.SIG_IGN:
                signal.signal(signum, lambda *_: None)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)

        def on_signals() -> None:
            for signum in os.read(read, 64):
                if signum == signal.SIGCHLD:
                    reap_children()
                else:
                    self._take_signal(signum)

        self._selector.register(read, selectors.EVENT_READ, on_signals)

    def _take_signal(self, signum: int, why: str = "") -> None:
        if signum == STACKS:
            self._world.where.ask(self._world.agents, self._world.where.of_user)
        elif signum in (*FORWARDED, SAVE):
            self._world.pass_on(signum)
        elif signum == signal.SIGINT and (agent := self._agent_of_debugged()):
            agent.send("interrupt", rank=self._order.plan.debug_rank)
        elif self._first_signal is None:
            self._first_signal = signum, time.monotonic()
            name = signal.Signals(signum).name
            self._stop_for(Stop("signal", signum, why), passed_on(signum), why or name)
        elif repeats(self._first_signal[0], signum, time.monotonic() - self._first_signal[1]):
            self._observer.tell({"event": "signal_repeated", "signal": signum})
        else:
            self._tell("stopping", reason="second signal: killing them", grace_s=0)
            self._world.kill()

    def _tell_stacks(self) -> None:
        """Write what the ranks have answered, and tell whoever asked where they are."""
        world = self._world
        write_answers(self._run, world.hangs.new_evidence(), self._complain)
        agents = world.agents
        if (answers := world.where.of_user.answers(live_ranks(agents))) is None:
            return
        write_answers(self._run, answers, self._complain)
        self._tell("stacks", ranks=told(agents, answers))

    def _agent_of_debugged(self) -> Agent | None:
        """Return the agent of the rank that has the terminal, while Ctrl-C is for that rank."""
        rank, agents = self._order.plan.debug_rank, self._world.agents
        return next((a for a in agents if rank in a.ranks and not self._world.stopping), None)

    # --- events ----------------------------------------------------------------------

    def _tell(self, name: str, **fields: Any) -> None:
        self._observer.tell(self._written(name, fields))

    def _written(self, name: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Write an event to the file of events, and return it."""
        event = {"event": name, "time": round(time.time(), 3), **fields}
        self._events.write_json(event)
        return event

    def _complain(self, message: str) -> None:
        self._observer.tell({"event": "notice", "time": round(time.time(), 3), "message": message})

    def _write_record(self, run_record: RunRecord) -> None:
        self._record = run_record
        try:
            record.write(self._run, run_record)
        except OSError as error:
            self._complain(f"run.json cannot be written: {error.strerror}")

    def _end(self, attempts: int) -> int:
        ending = describe(self._world, self._stop)
        if hangs := len(self._world.hangs.observed):
            times = "once" if hangs == 1 else f"{hangs} times"
            self._tell("notice", message=f"the ranks hung {times}; --on-hang stop ends such a run")
        write_evidence(self._run, self._world, ending, self._complain)
        told: dict[str, Any] = {
            name: getattr(ending, name)
            for name in ("outcome", "exit_code", "summary", "hint", "where")
        }
        duration_s = round(time.monotonic() - self._started_at, 1)
        # who follows the file of events stops at a record that is over: the event comes first
        more = {"duration_s": duration_s, "attempts": attempts, "verdict": ending.verdict_json()}
        event = self._written("ended", {**told, **more})
        self._write_record(record.ended(self._record, attempts=attempts, **told))
        self._observer.tell(event)
        self._beat.end()
        self._observer.flush_for(_FAREWELL_S)
        self._metrics.close()
        self._events.close()
        self._logs.close()
        if self._order.plan.report:
            write_report(self._run, self._order.environ)
        return ending.exit_code

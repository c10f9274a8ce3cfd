"""The agent's main loop: ranks, their output and reports, and the supervisor's commands.

The loop owns the main thread, so a signal or a lost supervisor is never missed; torch's
engine, which blocks in its rendezvous, has a thread of its own.
"""

from __future__ import annotations

import base64
import os
import re
import selectors
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from distrun.agent.channel import Channel
from distrun.agent.ending import Ending
from distrun.agent.forks import Forks
from distrun.agent.gpu_memory import GpuMemory
from distrun.agent.looks import Looks
from distrun.agent.memory_kills import MemoryKills
from distrun.agent.rank import Rank
from distrun.agent.records import Records
from distrun.agent.samples import Samples
from distrun.agent.stdin import Stdin
from distrun.env import TAG
from distrun.processes import reap_children, send, sweep
from distrun.signal_masks import survives
from distrun.signals import HEARD
from distrun.silence import BEAT_S, LOST_AFTER_S, TOLD_AFTER_S
from distrun.streams import NOTHING_HANDED, Streams
from distrun.wire import WAITING_FOR_NODES

_ORPHANED_GRACE_S = 2.0  # the launcher is gone: nobody reads what a longer grace would print
_LAST_WORDS_CHUNKS = 2  # 2 MiB, twice the pipe: a grandchild may go on writing
_GATHER_S = 0.003
_NO_MORE_THREADS = re.compile("Resource temporarily unavailable|can't start new thread")
_METRICS_S = 0.1  # ten times a second is enough for a status line, and cheap for the supervisor


class Node:
    """One node of a run, from the start command to the last process."""

    def __init__(self, channel: Channel, forks: Forks, streams: Streams) -> None:
        self._channel = channel
        self._forks = forks
        self._stdin = Stdin() if streams.fed else None
        if self._stdin:
            streams = replace(streams, handed_fds=(self._stdin.read_fd, None, None))
        self._streams = streams
        self._ranks: dict[int, Rank] = {}  # by local rank
        self._all_ended = threading.Event()
        self._released = threading.Event()
        self._to_start: tuple[dict[int, dict[str, str]], dict[int, list[str]]] | None = None
        self._printed = False
        self._mixed = False
        self._metrics: list[dict[str, Any]] = []
        self._metrics_due = self._beat_at = 0.0
        self._orphaned = False
        self._parent = os.getppid()
        self._memory_kills = MemoryKills()
        self._ending = Ending(os.environ[TAG], self._own_children, channel.event)
        self._commands: Mapping[str, Callable[[dict[str, Any]], None]] = {
            "start": self._start,
            "signal": self._signal,
            "interrupt": self._interrupt,
            "look": lambda _: self._looks.look(),
            "stacks": lambda told: self._looks.stacks(examines=told.get("examines", False)),
            "stdin": self._stdin_came,
            "stop": self._stop,
            "kill": lambda _: self._ending.kill(self._live()),
            "exit": self._exit,
        }
        self._to_obey: deque[dict[str, Any]] = deque()
        self._by_itself = False  # no launcher sees the other nodes
        self._wake_read, self.wake_fd = os.pipe()  # signals write their numbers to it
        os.set_blocking(self.wake_fd, False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(channel.commands_fd, selectors.EVENT_READ, self._on_commands)
        self._selector.register(forks, selectors.EVENT_READ, self._on_forks)
        self._selector.register(self._wake_read, selectors.EVENT_READ, self._on_wake)
        self._records = Records(self._selector, lambda: {r.pid for r in self._live()})
        self._gpu_memory = GpuMemory(self._selector, channel.event)
        self._looks = Looks(self._records, self._live, channel.event)
        self._samples = Samples(self._selector, channel.event)

    def run(self) -> None:
        """Serve until the supervisor ends the node, then leave no process."""
        while not self._ending.over:
            for key, _ in self._selector.select(self._timeout_s()):
                handler: Callable[[], None] = key.data
                handler()
            reap_children()  # orphans that are now children of this process
            if self._printed and not self._mixed:
                # A rank prints a line at a time: wait for more, not to send a frame for each.
                # One that prints to both streams is read at once, so that their order is kept.
                time.sleep(_GATHER_S)
            self._printed = self._mixed = False
            self._on_time()
        sweep(os.environ[TAG], below=os.getpid())
        for rank in self._ranks.values():
            self._on_output(rank, chunks=_LAST_WORDS_CHUNKS)  # of what it had left behind
            rank.close()
        self._records.close()
        self._samples.close()
        self._channel.event("swept")

    def _timeout_s(self) -> float:
        due = [self._beat_at, *self._ending.due(), *self._looks.due(), *self._samples.due()]
        if self._metrics:
            due.append(self._metrics_due)
        return max(0.0, min(due) - time.monotonic())

    def _on_time(self) -> None:
        now = time.monotonic()
        if now >= self._beat_at:
            self._beat_at = now + BEAT_S
            self._channel.beat()
            self._listen()
        if self._metrics and now >= self._metrics_due:
            self._send_metrics()
        self._looks.on_time()
        self._samples.on_time()
        self._obey()
        self._ending.on_time(self._live())
        if self._ending.stopped:
            self._all_ended.set()
            if self._orphaned:
                self._ending.over = True

    def _listen(self) -> None:
        """Act when the parent is gone, or the supervisor or the forkserver is silent for long."""
        if os.getppid() != self._parent:  # its pipes may be held open: by a daemon of Slurm
            self._on_orphaned("the process that started the agent has ended")
        if self._channel.silence.lost or self._channel.lost:
            self._on_orphaned(
                f"the supervisor said nothing for {LOST_AFTER_S:g} s, and was given up"
            )
        if self._forks.silence.to_be_told:
            message = f"has been silent for {TOLD_AFTER_S:g} s: is it stopped?"
            self._channel.event("notice", message=f"the process that forks ranks {message}")
        if self._forks.silence.lost:
            self._on_forkserver_lost(f"said nothing for {LOST_AFTER_S:g} s")

    # --- what the engine calls, from its own thread ---------------------------------

    def start(self, environs: dict[int, dict[str, str]], commands: dict[int, list[str]]) -> None:
        """Ask the loop to start the ranks; see engine.Ranks."""
        self._to_start = (environs, commands)
        os.write(self.wake_fd, b"s")

    def wait(self) -> bool:
        """See engine.Ranks."""
        self._all_ended.wait()
        return bool(self._ranks) and all(r.status == 0 for r in [*self._ranks.values()])

    def ended_within(self, limit_s: float) -> bool:
        """See engine.Ranks."""
        return self._all_ended.wait(limit_s)

    def wait_for_release(self) -> None:
        """See engine.Ranks."""
        if self._by_itself:
            self._channel.event("node_succeeded")
        self._released.wait()

    # --- the loop's handlers ---------------------------------------------------------

    def _on_commands(self) -> None:
        commands = self._channel.commands()
        if commands is None:
            self._on_orphaned("its connection to the supervisor was closed")
            return
        self._to_obey += commands
        self._obey()

    def _obey(self) -> None:
        """Carry out commands in their order; a stop waits until the stacks are written."""
        while self._to_obey and not self._looks.is_collecting:
            command = self._to_obey.popleft()
            self._commands[command["command"]](command)

    def _on_orphaned(self, why: str) -> None:
        if not self._orphaned:
            self._orphaned = True
            self._unregister(self._channel.commands_fd)
            self._channel.event("node_broken", why=why)  # for a supervisor that was only stopped
            self._ending.stop(signal.SIGTERM, _ORPHANED_GRACE_S, self._live())

    def _start(self, command: dict[str, Any]) -> None:
        self._by_itself = command["by_itself"]
        self._samples.begin(command["metrics_every_s"])
        self._gpu_memory.wait(lambda: self._start_engine(command), again=command["restarts"] > 0)

    def _start_engine(self, command: dict[str, Any]) -> None:
        self._channel.event("node_stage", stage=WAITING_FOR_NODES)
        try:
            threading.Thread(target=self._engine, args=(command,), daemon=True).start()
        except RuntimeError as error:  # this user may have no more threads
            self._cannot_start("a thread", error)

    def _cannot_start(self, what: str, why: object) -> None:
        self._channel.event("start_failed", what=f"{what} cannot be started", why=str(why))

    def _engine(self, command: dict[str, Any]) -> None:
        from distrun.agent.engine import arguments_of, run_engine

        try:
            counts = command["restarts"], command["max_restarts"]
            run_engine(arguments_of(command), self, *counts, by_itself=self._by_itself)
        except BaseException as error:  # SystemExit of a parser too: nothing else would report it
            traceback.print_exc()  # into the agent's log
            message = str(error).split("\n")[0]
            if _NO_MORE_THREADS.search(message):
                self._cannot_start("a thread", message)
            else:
                self._channel.event("engine_failed", type=type(error).__name__, message=message)

    def _on_wake(self) -> None:
        for signum in os.read(self._wake_read, 64):
            if signum in HEARD:
                self._channel.event("node_signalled", signal=signum)
        if self._to_start is None or self._ending.begun:
            return
        (environs, commands), self._to_start = self._to_start, None
        self._channel.event("node_stage", stage="starting its ranks")
        self._forks.begin(self._records.environment(os.environ))
        try:
            for local_rank, environ in environs.items():
                self._ask_for(local_rank, environ, commands[local_rank])
        except OSError as error:  # out of descriptors
            self._cannot_start("a rank", error)

    def _ask_for(self, local_rank: int, environ: dict[str, str], command: list[str]) -> None:
        rank = Rank(int(environ["RANK"]), apart=self._streams.apart)
        self._ranks[local_rank] = rank
        handed = rank.rank == self._streams.handed_rank
        fds = rank.open(self._streams.handed_fds if handed else NOTHING_HANDED.handed_fds)
        if handed and self._stdin:
            self._stdin.handed()
        self._forks.ask(environ, command, fds)
        for fd in rank.output.fds:
            self._selector.register(fd, selectors.EVENT_READ, partial(self._on_output, rank))
        handler = partial(self._on_report, rank)
        self._selector.register(rank.report_fd, selectors.EVENT_READ, handler)

    def _on_forks(self) -> None:
        replies = self._forks.read()
        if replies is None:
            self._on_forkserver_lost("was killed")
            return
        for reply in replies:
            if "ended" in reply:
                self._ended(reply)
            elif "failed" in reply:
                self._cannot_start("a rank", reply["failed"])
            elif "pid" in reply:
                rank = next(r for r in self._ranks.values() if not r.pid)
                rank.pid = reply["pid"]
                self._channel.event("rank_started", rank=rank.rank, pid=rank.pid)
                if self._ending.begun:  # requested before the stop, forked after it
                    rank.kill()

    def _on_forkserver_lost(self, how: str) -> None:
        """End the node: the ranks end with the forkserver, and nothing else can watch them."""
        self._unregister(self._forks.fileno())
        send(self._forks.pid, signal.SIGKILL)
        self._forks.silence.heard()
        for rank in self._live():
            rank.status = signal.SIGKILL
        self._channel.event("node_broken", why=f"the process that forks its ranks {how}")

    def _ended(self, reply: dict[str, Any]) -> None:
        rank = next((r for r in self._ranks.values() if r.pid == reply["ended"]), None)
        if rank is None:
            return
        self._on_output(rank, chunks=_LAST_WORDS_CHUNKS)  # before the event of the death
        self._on_report(rank)
        self._send_metrics()
        rank.status = reply["status"]
        code = rank.exit_code
        stacks = rank.read_stacks() if code else ""
        printed = rank.printed_stacks if code < 0 else ""
        self._channel.event(
            "rank_ended",
            rank=rank.rank,
            pid=rank.pid,
            exit_code=code,
            monotonic=rank.ended_at(reply["monotonic"]),
            left_by_itself=rank.left_by_itself,
            code_known=rank.code_known,
            report=rank.report,
            stacks=stacks or printed,
            stacks_printed=bool(printed and not stacks),
            last_words=rank.last_words if code else "",
            out_of_memory=self._memory_kills.of(rank.pid) if code == -signal.SIGKILL else "",
        )
        if not self._live():
            self._all_ended.set()
            if all(r.status == 0 for r in self._ranks.values()) and not self._by_itself:
                self._channel.event("node_succeeded")

    def _on_output(self, rank: Rank, chunks: int = 1) -> None:
        for _ in range(chunks):
            if not (parts := rank.read_output()):
                break
            self._printed = True
            self._mixed |= len(parts) > 1
            for stream, data in parts:
                self._channel.output(rank.rank, stream, data)
        for fd in rank.output.spent_fds:
            self._unregister(fd)

    def _on_report(self, rank: Rank) -> None:
        for record in rank.read_reports():
            if record["report"] == "metrics":
                numbers = {key: record[key] for key in ("time", "step", "total_steps", "values")}
                if not self._metrics:
                    self._metrics_due = time.monotonic() + _METRICS_S
                self._metrics.append({"rank": rank.rank, **numbers})
            elif record["report"] == "milestone":
                self._send_metrics()  # of the steps before it
                told = {"what": record["what"], "step": record["step"], "time_s": record["time_s"]}
                self._channel.event("milestone", rank=rank.rank, **told)
            elif record["report"] == "collectives":
                self._channel.event("collectives", rank=rank.rank, answer=record["answer"])
            else:
                rank.take_leave(record)
                if record["report"] == "error" and rank.left_by_itself:
                    self._channel.event("rank_raised", rank=rank.rank, report=record)
        if rank.report_at_eof:
            self._unregister(rank.report_fd)

    def _send_metrics(self) -> None:
        for numbers in self._metrics:
            self._channel.event("metrics", **numbers)
        self._metrics.clear()

    def _unregister(self, fd: int) -> None:
        try:
            self._selector.unregister(fd)
        except KeyError:
            pass  # a rank is removed at its death and at the end of file

    # --- commands ----------------------------------------------------------------------

    def _live(self) -> list[Rank]:
        return [r for r in self._ranks.values() if r.pid and r.status is None]

    def _own_children(self) -> tuple[int, ...]:
        return self._forks.pid, *self._samples.pids

    def _signal(self, command: dict[str, Any]) -> None:
        """Pass a signal to the ranks that handle it; report the others."""
        deaf = []
        for rank in self._live():
            if survives(rank.pid, command["signal"]):
                send(rank.pid, command["signal"])
            else:
                deaf.append(rank.rank)
        self._channel.event("signal_forwarded", signal=command["signal"], deaf=deaf)

    def _interrupt(self, command: dict[str, Any]) -> None:
        """Pass Ctrl-C on to the rank that has the terminal."""
        for rank in self._live():
            if rank.rank == command["rank"]:
                send(rank.pid, signal.SIGINT)

    def _stop(self, command: dict[str, Any]) -> None:
        for rank in self._live():
            self._on_report(rank)  # a rank that is leaving gets no signal
        self._ending.stop(command["signal"], command["grace_s"], self._live())

    def _stdin_came(self, command: dict[str, Any]) -> None:
        if self._stdin:
            self._tell_taken(self._stdin.take(base64.b64decode(command["data"])))

    def _tell_taken(self, nbytes: int) -> None:
        """Report how much of stdin is done with, and wait for room for the rest."""
        assert self._stdin
        self._channel.event("stdin_taken", count=nbytes)
        if (fd := self._stdin.waiting_fd) is not None and fd not in self._selector.get_map():
            self._selector.register(fd, selectors.EVENT_WRITE, partial(self._on_room, fd))

    def _on_room(self, fd: int) -> None:
        assert self._stdin
        self._unregister(fd)
        self._tell_taken(self._stdin.flush())

    def _exit(self, command: dict[str, Any]) -> None:
        self._released.set()
        self._ending.leave(command["linger_s"])

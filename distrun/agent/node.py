"""The agent's main loop: ranks, their output and reports, and the supervisor's commands.

The loop owns the main thread, so a signal or a lost supervisor is never missed; torch's
engine, which blocks in its rendezvous, has a thread of its own.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from distrun.agent.channel import Channel
from distrun.agent.rank import Rank
from distrun.agent.rank_boot import STACKS_SIGNAL
from distrun.env import TAG
from distrun.processes import catches, reap_children, send, sweep

_ORPHANED_GRACE_S = 2.0  # the launcher is gone: nobody reads what a long farewell would say
_STACKS_LIMIT_S = 2.0  # on a busy machine; one that the kernel holds never writes
_STACKS_LOOK_S = 0.02
_LAST_WORDS_CHUNKS = 2  # 2 MiB, twice the pipe: a grandchild may go on writing
_GATHER_S = 0.003
_METRICS_S = 0.1  # ten times a second is enough for people, and cheap for the supervisor
_LONGEST_WAIT_S = 3600.0  # a selector takes no number of seconds beyond some 24 days


class Node:
    """One node of a run, from the start command to the last process."""

    def __init__(self, channel: Channel, forkserver: socket.socket, stdin_fd: int | None) -> None:
        self._channel = channel
        self._forkserver = forkserver
        self._replies = b""
        self._stdin_fd = stdin_fd
        self._ranks: dict[int, Rank] = {}  # by pid
        self._all_ended = threading.Event()
        self._released = threading.Event()
        self._to_start: tuple[dict[int, dict[str, str]], dict[int, list[str]]] | None = None
        self._finished = False
        self._early_deaths: list[dict[str, Any]] = []
        self._printed = False
        self._metrics: list[dict[str, Any]] = []
        self._metrics_due = 0.0
        self._stopping = False
        self._told_stopped = False
        self._channel_lost = False
        self._kill_at: float | None = None
        self._wake_read, self._wake_write = os.pipe()
        self._selector = selectors.DefaultSelector()
        self._selector.register(channel.commands_fd, selectors.EVENT_READ, self._on_commands)
        self._selector.register(forkserver, selectors.EVENT_READ, self._on_forkserver)
        self._selector.register(self._wake_read, selectors.EVENT_READ, self._on_wake)

    def run(self) -> None:
        """Serve until the supervisor lets go, then leave no process behind."""
        while not self._finished:
            timeout = _LONGEST_WAIT_S
            if self._kill_at is not None:
                timeout = min(timeout, max(0.0, self._kill_at - time.monotonic()))
            if self._metrics:
                timeout = min(timeout, max(0.0, self._metrics_due - time.monotonic()))
            for key, _ in self._selector.select(timeout):
                handler: Callable[[], None] = key.data
                handler()
            reap_children()  # orphans that this process has adopted
            if self._printed:
                # A rank prints a line at a time: let more come, not a frame for each line.
                self._printed = False
                time.sleep(_GATHER_S)
            if self._metrics and time.monotonic() >= self._metrics_due:
                self._send_metrics()
            if self._kill_at is not None and time.monotonic() >= self._kill_at:
                self._kill()
            if self._stopping and not self._live():
                self._tell_stopped()
                if self._channel_lost:
                    break
        sweep(os.environ[TAG], below=os.getpid())
        for rank in self._ranks.values():
            rank.close()
        self._channel.event("swept")

    def _tell_stopped(self) -> None:
        if not self._told_stopped:
            self._told_stopped = True
            self._all_ended.set()
            self._channel.event("node_stopped")

    # --- what the engine asks, from its own thread ---------------------------------

    def start(self, environs: dict[int, dict[str, str]], commands: dict[int, list[str]]) -> None:
        """Ask the loop to start the ranks; see engine.Ranks."""
        self._to_start = (environs, commands)
        os.write(self._wake_write, b"s")

    def wait(self) -> bool:
        """See engine.Ranks."""
        self._all_ended.wait()
        return bool(self._ranks) and all(r.status == 0 for r in [*self._ranks.values()])

    def wait_for_release(self) -> None:
        """See engine.Ranks."""
        self._released.wait()

    # --- the loop's handlers ---------------------------------------------------------

    def _on_commands(self) -> None:
        commands = self._channel.commands()
        if commands is None:
            self._selector.unregister(self._channel.commands_fd)
            self._channel_lost = True
            self._stop({"signal": signal.SIGTERM, "grace_s": _ORPHANED_GRACE_S})
            return
        for command in commands:
            getattr(self, "_" + command["command"])(command)

    def _start(self, command: dict[str, Any]) -> None:
        threading.Thread(target=self._engine, args=(command,), daemon=True).start()

    def _engine(self, command: dict[str, Any]) -> None:
        from distrun.agent.engine import run_engine

        try:
            run_engine(command["arguments"], self, command["restarts"], command["max_restarts"])
        except Exception as error:  # whatever torch raises belongs into the launcher's verdict
            traceback.print_exc()  # into the agent's log
            self._channel.event(
                "engine_failed", type=type(error).__name__, message=str(error).split("\n")[0]
            )

    def _on_wake(self) -> None:
        os.read(self._wake_read, 64)
        if self._to_start is None or self._stopping:
            return
        environs, commands = self._to_start
        self._to_start = None
        try:
            self._fork_all(environs, commands)
        except OSError as error:  # out of descriptors or processes
            self._channel.event(
                "engine_failed", type="OSError", message=f"a rank cannot be started: {error}"
            )
        deaths, self._early_deaths = self._early_deaths, []
        for reply in deaths:
            self._ended(reply)

    def _fork_all(
        self, environs: dict[int, dict[str, str]], commands: dict[int, list[str]]
    ) -> None:
        base = dict(os.environ)
        for local_rank, environ in environs.items():
            stdin = self._stdin_fd if environ["RANK"] == "0" else None
            rank = Rank(int(environ["RANK"]))
            rank.pid = self._fork(
                {"environ": base | environ, "command": commands[local_rank]}, rank.open(stdin)
            )
            rank.opened()
            self._ranks[rank.pid] = rank
            for fd, handler in (
                (rank.output_fd, lambda r=rank: self._on_output(r)),
                (rank.report_fd, lambda r=rank: self._on_report(r)),
            ):
                self._selector.register(fd, selectors.EVENT_READ, handler)
            self._channel.event("rank_started", rank=rank.rank, pid=rank.pid)

    def _fork(self, request: dict[str, Any], fds: list[int]) -> int:
        data = json.dumps(request).encode() + b"\n"
        sent = socket.send_fds(self._forkserver, [data], fds)
        self._forkserver.sendall(data[sent:])
        while True:
            # One read may bring the answer and, behind it, the news that it has ended already.
            replies = self._read_replies()
            self._early_deaths += [reply for reply in replies if "ended" in reply]
            for reply in replies:
                if "pid" in reply:
                    return int(reply["pid"])

    def _read_replies(self) -> list[dict[str, Any]]:
        data = self._forkserver.recv(1 << 16)
        if not data:
            raise ConnectionError("the process that forks the ranks is gone")
        *lines, self._replies = (self._replies + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def _on_forkserver(self) -> None:
        try:
            replies = self._read_replies()
        except ConnectionError as error:
            # Its ranks die with it; without it no more of them can be watched.
            self._selector.unregister(self._forkserver)
            self._channel.event("engine_failed", type="ForkserverLost", message=str(error))
            for rank in self._live():
                rank.status = signal.SIGKILL
            return
        for reply in replies:
            self._ended(reply)

    def _ended(self, reply: dict[str, Any]) -> None:
        rank = self._ranks.get(reply["ended"])
        if rank is None:
            return
        self._on_output(rank, chunks=_LAST_WORDS_CHUNKS)  # before the news of the death
        self._on_report(rank)
        self._send_metrics()
        rank.status = reply["status"]
        self._channel.event(
            "rank_ended",
            rank=rank.rank,
            pid=rank.pid,
            exit_code=os.waitstatus_to_exitcode(rank.status),
            monotonic=rank.ended_at(reply["monotonic"]),
            left_by_itself=rank.left_by_itself,
            report=rank.report,
            stacks=rank.read_stacks() if rank.status else "",
            last_words=rank.last_words.decode(errors="replace") if rank.status else "",
        )
        if not self._live():
            self._all_ended.set()
            if all(r.status == 0 for r in self._ranks.values()):
                self._channel.event("node_succeeded")

    def _on_output(self, rank: Rank, chunks: int = 1) -> None:
        for _ in range(chunks):
            if not (data := rank.read_output()):
                break
            self._printed = True
            self._channel.output(rank.rank, data)
        if rank.output_at_eof:
            self._unregister(rank.output_fd)

    def _on_report(self, rank: Rank) -> None:
        for record in rank.read_reports():
            if record["report"] == "metrics":
                numbers = {key: record[key] for key in ("time", "step", "total_steps", "values")}
                if not self._metrics:
                    self._metrics_due = time.monotonic() + _METRICS_S
                self._metrics.append({"rank": rank.rank, **numbers})
            else:
                rank.take_leave(record, told_to=self._stopping)
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
            pass  # both the death and the end of file take a rank out

    # --- commands ----------------------------------------------------------------------

    def _live(self) -> list[Rank]:
        return [r for r in self._ranks.values() if r.status is None]

    def _signal(self, command: dict[str, Any]) -> None:
        """Pass a signal to the ranks that have a handler for it; name the others."""
        deaf = []
        for rank in self._live():
            if catches(rank.pid, command["signal"]):
                send(rank.pid, command["signal"])
            else:
                deaf.append(rank.rank)
        self._channel.event("signal_forwarded", signal=command["signal"], deaf=deaf)

    def _stop(self, command: dict[str, Any]) -> None:
        self._stopping = True
        for rank in self._live():
            send(rank.pid, command["signal"])
            send(rank.pid, signal.SIGCONT)  # a stopped rank cannot even be asked
        kill_at = time.monotonic() + command["grace_s"]
        self._kill_at = min(self._kill_at or kill_at, kill_at)  # a second stop gives no more time

    def _stacks(self, _: dict[str, Any]) -> None:
        """Collect where every live rank is; a rank writes it from C, stuck or not."""
        live = self._live()
        asked = [r for r in live if STACKS_SIGNAL and catches(r.pid, STACKS_SIGNAL)]
        for rank in asked:
            send(rank.pid, STACKS_SIGNAL)
        deadline, sizes = time.monotonic() + _STACKS_LIMIT_S, [0] * len(asked)
        while asked and time.monotonic() < deadline:
            time.sleep(_STACKS_LOOK_S)
            before, sizes = sizes, [rank.stacks_nbytes for rank in asked]
            if all(sizes) and sizes == before:  # all have written, and nobody writes more
                break
        for rank in live:
            self._channel.event("stacks", rank=rank.rank, stacks=rank.read_stacks())

    def _kill(self, _: dict[str, Any] | None = None) -> None:
        self._stopping = True
        self._kill_at = None
        for rank in self._live():
            rank.kill()
        reap_children()

    def _exit(self, _: dict[str, Any]) -> None:
        self._released.set()
        self._finished = True

"""A supervisor, a forkserver and ranks that a test plays, around an agent's own loop."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterable
from typing import Any

from distrun.agent.channel import Channel
from distrun.agent.forks import Forks
from distrun.agent.node import Node
from distrun.streams import NOTHING_HANDED
from tests.unit.echo import Echo


class PlayedRank:
    """What a rank has of its agent: the descriptors it was passed, and a process."""

    def __init__(self, request: dict[str, Any], fds: list[int]) -> None:
        self.environ: dict[str, str] = request["environ"]
        self.command: list[str] = request["command"]
        self.stdin_fd, self.stdout_fd, self.stderr_fd, self.report_fd, self.stacks_fd = (
            self._fds
        ) = fds
        self.process = Echo()

    def reports(self, report: str, **fields: Any) -> None:
        """Write a report."""
        os.write(self.report_fd, json.dumps({"report": report, **fields}).encode() + b"\n")

    def logs(self, step: int) -> None:
        """Report the numbers of a step."""
        self.reports("metrics", step=step, total_steps=None, time=1.0, values={"loss": 0.5})

    def raises(self) -> None:
        """Report an exception that ends it."""
        texts = dict.fromkeys(("message", "traceback", "file", "source"), "")
        lists: dict[str, list[Any]] = {"carriers": [], "threads": []}
        self.reports("error", type="ValueError", line=3, monotonic=5.0, **texts, **lists)

    def close(self) -> None:
        """Let go of all that it has."""
        self.process.close()
        for fd in self._fds:
            os.close(fd)


class Peer:
    """The other ends of an agent's pipes, and the forkserver."""

    def __init__(self) -> None:
        commands_read, self.commands_fd = os.pipe()
        self._events, events_write = os.pipe()
        os.set_blocking(self._events, False)
        self.channel = Channel(commands_read, events_write)
        self.forkserver, self.ours = socket.socketpair()
        # As if all ranks were below the forkserver: no process of this test is a leftover.
        self.forks = Forks(self.ours, os.getpid())
        self.node = Node(self.channel, self.forks, NOTHING_HANDED)
        self.ranks: list[PlayedRank] = []

    def said(self) -> list[dict[str, Any]]:
        """Return the events since the last call, those of output with their bytes."""
        try:
            data = os.read(self._events, 1 << 20)
        except BlockingIOError:
            return []
        events = []
        while data:
            line, _, data = data.partition(b"\n")
            if line:
                events.append(json.loads(line))
                if nbytes := events[-1].get("nbytes"):
                    events[-1]["data"], data = data[:nbytes], data[nbytes:]
        return events

    def said_names(self) -> list[str]:
        """Return the names of those events."""
        return [event["event"] for event in self.said()]

    def says(self, data: bytes) -> None:
        """Write to the agent."""
        os.write(self.commands_fd, data)

    def commands(self, name: str, **fields: Any) -> None:
        """Give the agent a command, and let it act."""
        self.says(json.dumps({"command": name, **fields}).encode() + b"\n")
        self.turn()

    def turn(self) -> None:
        """Let the agent's loop take what has come; children of the test are not collected."""
        while ready := self.node._selector.select(0):
            for key, _ in ready:
                key.data()
        self.node._on_time()

    def turn_until_told(self, count: int) -> list[dict[str, Any]]:
        """Let it go on until it has told so many events, and return them."""
        told: list[dict[str, Any]] = []
        deadline = time.monotonic() + 20
        while len(told) < count and time.monotonic() < deadline:
            self.node._selector.select(self.node._timeout_s())
            self.turn()
            told += self.said()
        return told

    def ask_for(self, ranks: Iterable[int]) -> None:
        """Have the agent start ranks, up to its first question to the forkserver."""
        environs = {i: {"RANK": str(rank)} for i, rank in enumerate(ranks)}
        self.node.start(environs, {i: ["python", f"{i}.py"] for i in environs})
        self.turn()

    def fork(self) -> PlayedRank:
        """Answer one question of the agent with a new rank."""
        data, fds, *_ = socket.recv_fds(self.forkserver, 1 << 16, 10)
        self.ranks.append(PlayedRank(json.loads(data), list(fds)))
        self.answer(pid=self.ranks[-1].process.pid)
        return self.ranks[-1]

    def answer(self, **fields: Any) -> None:
        """Tell the agent something as the forkserver."""
        self.forkserver.sendall(json.dumps(fields).encode() + b"\n")
        self.node._on_forks()  # before whatever else has come meanwhile
        self.turn()

    def start(self, *ranks: int) -> list[PlayedRank]:
        """Start ranks, and forget what was said of it."""
        self.ask_for(ranks)
        assert b"common" in self.forkserver.recv(1 << 16)
        self.answer(taken=True)
        started = [self.fork() for _ in ranks]
        self.said()
        return started

    def end(self, rank: PlayedRank, status: int = 0) -> None:
        """Tell of a rank's end."""
        self.answer(ended=rank.process.pid, status=status, monotonic=9.0)

    def close(self) -> None:
        """Let go of everything."""
        for played in self.ranks:
            played.close()
        for rank in self.node._ranks.values():
            rank.close()
        self.node._records.close()
        self.node._selector.close()
        for fd in (self.node._wake_read, self.node.wake_fd, self._events, self.commands_fd):
            os.close(fd)
        self.channel.close()
        self.forkserver.close()
        self.ours.close()

"""Connections to agents that the launcher has made, and the supervisor of the run goes on with.

A probe can become the agent of its node. So a launch logs in to each machine once.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from distrun.nodes import conversation
from distrun.nodes.conversation import Conversation
from distrun.processes import descriptor_limits, send, send_group, start_time
from distrun.silence import LOST_AFTER_S

_END_LIMIT_S = 2.0
_AFTER_RUN_S = 10.0
"""Longer than an agent takes to end its ranks when nobody supervises it any more."""
_FRESH_S = LOST_AFTER_S - 10.0
"""An agent that gets no order for LOST_AFTER_S ends."""
_PIPES = 3
_OTHER_FILES = 64


def most_kept() -> int:
    """Return how many connections still fit within this process's limit of open files."""
    try:
        open_files = len([*Path("/dev/fd").iterdir()])
    except OSError:
        open_files = 0  # a container without it
    return max(0, descriptor_limits()[0] - open_files - _OTHER_FILES) // _PIPES


@dataclass(frozen=True)
class Handed:
    """A connection as the supervisor gets it: open descriptors, and a process of the launcher."""

    pid: int
    """The client here that reaches the machine; it leads its process group."""
    start: str
    """Its start time: the launcher reaps it, and the system may use its pid again."""
    commands_fd: int
    messages_fd: int
    words_fd: int

    @property
    def fds(self) -> list[int]:
        """Its descriptors."""
        return [self.commands_fd, self.messages_fd, self.words_fd]

    def opened(self) -> Conversation:
        """Return the conversation, which closes the descriptors."""
        return Conversation(self.pid, *self.fds)

    def close(self) -> None:
        """Close the descriptors: the machine is not needed."""
        for fd in self.fds:
            os.close(fd)

    def kill(self) -> None:
        """Kill the client alone: a child of srun's then ends the step."""
        if start_time(self.pid) == self.start:
            send(self.pid, signal.SIGKILL)

    def kill_all(self) -> None:
        """Kill what is left of the client and its ProxyCommand (ssh_config(5)), after its end.

        No new process gets the number of a group that still has members.
        """
        if start_time(self.pid) in (self.start, ""):
            send_group(self.pid, signal.SIGKILL)


class Kept:
    """The launcher's connections to agents that wait for a supervisor.

    Like files, they are closed when nobody has them any more.

    Args:
        started: Conversations and clients, by the node's name.
        since: When the first of them may have become an agent.
    """

    def __init__(
        self,
        started: Mapping[str, tuple[Conversation, subprocess.Popen[bytes]]] = MappingProxyType({}),
        since: float = 0.0,
    ) -> None:
        self._started, self._since = dict(started), since
        self._clients: list[subprocess.Popen[bytes]] = []

    def of(self, names: Collection[str]) -> dict[str, Handed]:
        """Return those to these nodes that are still there, for the supervisor's start."""
        if time.monotonic() - self._since > _FRESH_S:
            return {}
        return {
            name: Handed(client.pid, start, *talk.fds)
            for name, (talk, client) in self._started.items()
            if name in names and client.poll() is None and (start := start_time(client.pid))
        }

    def leave(self) -> None:
        """Close the descriptors: the supervisor has its own."""
        for talk, client in self._started.values():
            talk.close()
            self._clients.append(client)
        self._started = {}

    def reap(self) -> None:
        """Forget the clients that have ended: their run goes on."""
        self._clients = [client for client in self._clients if client.poll() is None]

    def end(self, limit_s: float = _AFTER_RUN_S) -> None:
        """Wait for the clients of those that were left to a supervisor, which has ended."""
        conversation.end(self._clients, limit_s)
        self._clients = []

    def close(self) -> None:
        """End all connections: there is no run."""
        self.leave()
        self.end(_END_LIMIT_S)

    def __del__(self) -> None:
        if self._started:
            self.close()

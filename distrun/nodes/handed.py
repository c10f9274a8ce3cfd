"""Connections to agents that the launcher has made, and the supervisor of the run goes on with.

A probe can become the agent of its node. So a launch logs in to each machine once.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

from distrun.nodes import conversation
from distrun.nodes.conversation import Conversation
from distrun.processes import descriptor_limits, send_group, start_time

_END_LIMIT_S = 2.0
_PIPES = 3
_OTHER_FILES = 64


def most_kept() -> int:
    """Return how many connections fit within this process's limit of open files."""
    return max(0, descriptor_limits()[0] - _OTHER_FILES) // _PIPES


@dataclass(frozen=True)
class Handed:
    """A connection as the supervisor gets it: open descriptors, and a process of the launcher."""

    pid: int
    """The client here that reaches the machine; it leads its process group."""
    start: str
    """Its start time: the launcher may reap it, and the system use its pid again."""
    commands_fd: int
    messages_fd: int
    words_fd: int

    @property
    def fds(self) -> list[int]:
        """Its descriptors."""
        return [self.commands_fd, self.messages_fd, self.words_fd]

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON, its constructor's arguments."""
        return asdict(self)

    def opened(self) -> Conversation:
        """Return the conversation, which closes the descriptors."""
        return Conversation(self.pid, *self.fds, greeted=True)

    def close(self) -> None:
        """Close the descriptors: the machine is not needed."""
        for fd in self.fds:
            os.close(fd)

    def kill(self) -> None:
        """Kill the client, and what it goes through (ProxyCommand, ssh_config(5))."""
        if start_time(self.pid) == self.start:
            send_group(self.pid, signal.SIGKILL)


class Kept:
    """The launcher's connections to agents that wait for a supervisor.

    Like files, they are closed when nobody has them any more.

    Args:
        started: Conversations and clients, by the node's name.
    """

    def __init__(
        self,
        started: Mapping[str, tuple[Conversation, subprocess.Popen[bytes]]] = MappingProxyType({}),
    ) -> None:
        self._started = dict(started)
        self._clients: list[subprocess.Popen[bytes]] = []

    def of(self, names: Collection[str]) -> dict[str, Handed]:
        """Return those to these nodes that are still there, for the supervisor's start."""
        return {
            name: Handed(child.pid, start_time(child.pid), *talk.fds)
            for name, (talk, child) in self._started.items()
            if name in names and child.poll() is None
        }

    def leave(self) -> None:
        """Close the descriptors: the supervisor has its own."""
        for talk, client in self._started.values():
            talk.close()
            self._clients.append(client)
        self._started = {}

    def close(self) -> None:
        """End all connections, also those that were handed on."""
        self.leave()
        conversation.end(self._clients, _END_LIMIT_S)
        self._clients = []

    def __del__(self) -> None:
        if self._started:
            self.close()

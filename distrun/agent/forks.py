"""The agent's end of the socket to its forkserver."""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Mapping
from typing import Any

from distrun.silence import Silence
from distrun.wire import Lines, encoded


class Forks:
    """Asks for one rank after the other, and reads how they ended.

    It never blocks for an answer: a forkserver that is stopped must not stop the agent too.
    """

    def __init__(self, channel: socket.socket, pid: int) -> None:
        self.pid = pid
        self.silence = Silence()
        """The forkserver's."""
        self._channel = channel
        self._lines = Lines()
        self._asked: deque[tuple[dict[str, Any], list[int]]] = deque()

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when there is news."""
        return self._channel.fileno()

    def begin(self, environ: Mapping[str, str]) -> None:
        """Send it what the environments of all ranks have in common."""
        self._queue({"common": dict(environ)}, [])

    def ask(self, environ: Mapping[str, str], command: list[str], fds: list[int]) -> None:
        """Ask for a rank; the answers come in the order of the requests.

        Args:
            environ: Its own variables, beside those that all ranks have.
            command: What it runs.
            fds: stdin, stdout, stderr, report and stacks; closed here once it has them.
        """
        self._queue({"environ": dict(environ), "command": command}, fds)

    def read(self) -> list[dict[str, Any]] | None:
        """Return its new messages; None if it is gone. Call when readable."""
        try:
            data = self._channel.recv(1 << 16)
        except ConnectionError:
            data = b""
        if not data:
            return None
        self.silence.heard()
        replies = self._lines.feed(data)
        for reply in replies:
            if "ended" not in reply:
                self._answered()
        return replies

    def _queue(self, request: dict[str, Any], fds: list[int]) -> None:
        """Send a request when the previous one is answered, so that each arrives alone."""
        self._asked.append((request, fds))
        if len(self._asked) == 1:
            self._send_first()

    def _answered(self) -> None:
        _, fds = self._asked.popleft()
        for fd in fds:
            os.close(fd)
        if self._asked:
            self._send_first()

    def _send_first(self) -> None:
        request, fds = self._asked[0]
        data = encoded(request)
        try:
            sent = socket.send_fds(self._channel, [data], fds)
            self._channel.sendall(data[sent:])
        except ConnectionError:
            pass  # it is gone: the next read says so

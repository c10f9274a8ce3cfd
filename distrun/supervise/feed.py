"""Passes the launcher's stdin on to a rank on another machine."""

from __future__ import annotations

import base64
import os
import selectors
import threading

from distrun.supervise.agents import Agent

_WINDOW_NBYTES = 1 << 18
"""How much may be on its way: the rank may be slower than the launcher's stdin."""
_READ_NBYTES = 1 << 16


class Feed:
    """The launcher's stdin, and the agent whose rank reads it.

    Args:
        fd: The launcher's stdin.
        selector: Calls a key's data when it is readable.
    """

    def __init__(self, fd: int, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self._pipe, write_fd = os.pipe()
        self._agent: Agent | None = None
        self._window_nbytes = 0
        self._ended = self._watched = False
        # A file cannot be waited for, and a terminal or a network disk may block.
        threading.Thread(target=_copy, args=(fd, write_fd), daemon=True).start()

    def begin(self, agent: Agent) -> None:
        """Send what comes from now on to an agent; its rank has just started."""
        self._agent, self._window_nbytes = agent, _WINDOW_NBYTES
        if self._ended:
            agent.send("stdin", data="")
        self._watch()

    def taken(self, nbytes: int) -> None:
        """Note that the rank, or its pipe, has taken some bytes."""
        self._window_nbytes += nbytes
        self._watch()

    def pause(self) -> None:
        """Send nothing until the next `begin`."""
        self._agent = None
        self._watch()

    def _watch(self) -> None:
        wanted = self._agent is not None and self._window_nbytes > 0 and not self._ended
        if wanted and not self._watched:
            self._selector.register(self._pipe, selectors.EVENT_READ, self._on_data)
        elif self._watched and not wanted:
            self._selector.unregister(self._pipe)
        self._watched = wanted

    def _on_data(self) -> None:
        assert self._agent is not None
        data = os.read(self._pipe, min(self._window_nbytes, _READ_NBYTES))
        self._window_nbytes -= len(data)
        self._ended = not data
        self._agent.send("stdin", data=base64.b64encode(data).decode())
        self._watch()


def _copy(fd: int, write_fd: int) -> None:
    try:
        while data := os.read(fd, _READ_NBYTES):
            while data:
                data = data[os.write(write_fd, data) :]
    except OSError:
        pass  # a terminal that is gone
    os.close(write_fd)

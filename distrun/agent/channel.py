"""The agent's two pipes to the supervisor: commands come in, events and output go out."""

from __future__ import annotations

import os
import select
import threading
from typing import Any

from distrun.silence import BEAT_S, Silence
from distrun.wire import BEAT_LINE, Lines, Message, encoded


class Channel:
    """Exchanges messages with the supervisor on two descriptors of its own.

    Args:
        commands_fd: Where commands come in.
        events_fd: Where events and output go out.
        received: What something else has read of the commands.
    """

    def __init__(self, commands_fd: int, events_fd: int, received: bytes = b"") -> None:
        self.commands_fd = commands_fd
        self.silence = Silence()
        """The supervisor's."""
        self.lost = False
        """Nothing reaches the supervisor any more."""
        self._events_fd = events_fd
        self._lines = Lines(received=received)
        self._early: list[Message] = []
        self._writing = threading.Lock()
        os.set_blocking(events_fd, False)

    def commands(self) -> list[Message] | None:
        """Return new commands; None if the supervisor is gone. Call when readable."""
        if not self._read():
            return None
        early, self._early = self._early, []
        return early

    def event(self, name: str, **fields: Any) -> None:
        """Tell the supervisor that something happened."""
        self._write(encoded({"event": name, **fields}))

    def output(self, rank: int, stream: str, data: bytes) -> None:
        """Pass on what a rank printed."""
        fields = {"rank": rank, "stream": stream, "nbytes": len(data)}
        self._write(encoded({"event": "output", **fields}), data)

    def beat(self) -> None:
        """Say that this agent is alive."""
        self._write(BEAT_LINE)

    def close(self) -> None:
        """Close both ends here, in a process that is not the agent."""
        os.close(self.commands_fd)
        os.close(self._events_fd)

    def _read(self) -> bool:
        data = os.read(self.commands_fd, 1 << 20)
        self.silence.heard()
        self._early += self._lines.feed(data)
        return bool(data)

    def _write(self, *message: bytes) -> None:
        """Write a whole message; wait for a slow supervisor, but not for a lost one.

        The engine's thread writes too; a message is never split.
        """
        with self._writing:
            for data in message:
                view = memoryview(data)
                while view and not self.lost:
                    try:
                        view = view[os.write(self._events_fd, view) :]
                    except BlockingIOError:
                        self._wait_for_room()
                    except BrokenPipeError:
                        self.lost = True  # the commands pipe says so too

    def _wait_for_room(self) -> None:
        readable, writable, _ = select.select([self.commands_fd], [self._events_fd], [], BEAT_S)
        if not writable:
            ended = bool(readable) and not self._read()
            self.lost = ended or self.silence.lost

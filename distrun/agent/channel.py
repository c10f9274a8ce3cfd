"""The agent's two pipes to the supervisor: commands come in, events and output go out.

Both carry lines of JSON. A line with `nbytes` is followed by that many raw bytes: a
rank's output is not quoted, because 100 MB of it must cost little time. A blank line, or
on the way in a NUL byte anywhere, only says that the sender is alive.
"""

from __future__ import annotations

import json
import os
import select
import threading
from typing import Any

from distrun.silence import BEAT_S, Silence


class Channel:
    """Exchanges messages with the supervisor on two descriptors of its own."""

    def __init__(self, commands_fd: int, events_fd: int) -> None:
        self.commands_fd = commands_fd
        self.silence = Silence()
        """The supervisor's."""
        self.lost = False
        """Nothing reaches the supervisor any more."""
        self._events_fd = events_fd
        self._received = b""
        self._writing = threading.Lock()
        os.set_blocking(events_fd, False)

    def commands(self) -> list[dict[str, Any]] | None:
        """Return new commands; None if the supervisor is gone. Call when readable."""
        if not self._read():
            return None
        *lines, self._received = self._received.split(b"\n")
        return [json.loads(line) for line in lines]

    def event(self, name: str, **fields: Any) -> None:
        """Tell the supervisor that something happened."""
        self._write(json.dumps({"event": name, **fields}).encode() + b"\n")

    def output(self, rank: int, stream: str, data: bytes) -> None:
        """Pass on what a rank printed."""
        fields = {"rank": rank, "stream": stream, "nbytes": len(data)}
        header = json.dumps({"event": "output", **fields})
        self._write(header.encode() + b"\n", data)

    def beat(self) -> None:
        """Say that this agent is alive."""
        self._write(b"\n")

    def close(self) -> None:
        """Close both ends here, in a process that is not the agent."""
        os.close(self.commands_fd)
        os.close(self._events_fd)

    def _read(self) -> bool:
        data = os.read(self.commands_fd, 1 << 20)
        self.silence.heard()
        self._received += data.replace(b"\0", b"")
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

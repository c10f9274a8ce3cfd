"""The agent's two pipes to the supervisor: commands come in, events and output go out.

Both are lines of JSON. A line with `nbytes` is followed by that many raw bytes: a
rank's output travels unquoted, because 100 MB of it must cost next to nothing.
"""

from __future__ import annotations

import json
import os
from typing import Any


class Channel:
    """Speaks to the supervisor on two descriptors that nobody else uses."""

    def __init__(self, commands_fd: int, events_fd: int) -> None:
        self.commands_fd = commands_fd
        self._events_fd = events_fd
        self._received = b""

    def commands(self) -> list[dict[str, Any]] | None:
        """Read what has come; None when the supervisor is gone. Call when readable."""
        data = os.read(self.commands_fd, 1 << 20)
        if not data:
            return None
        *lines, self._received = (self._received + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def event(self, name: str, **fields: Any) -> None:
        """Tell the supervisor that something happened."""
        self._write(json.dumps({"event": name, **fields}).encode() + b"\n")

    def output(self, rank: int, data: bytes) -> None:
        """Pass on what a rank printed."""
        header = json.dumps({"event": "output", "rank": rank, "nbytes": len(data)})
        self._write(header.encode() + b"\n")
        self._write(data)

    def close(self) -> None:
        """Close both ends here, in a process that is not the agent."""
        os.close(self.commands_fd)
        os.close(self._events_fd)

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._events_fd, view) :]
        except BrokenPipeError:
            pass  # the supervisor is gone: the commands pipe says so too

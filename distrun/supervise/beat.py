"""A byte a second to everybody who listens to the supervisor: it is there, though busy.

In a thread of its own: a disk that hangs for a minute stops the supervisor's loop, and must
not make its agents end the job. A supervisor that is stopped as a whole says nothing.
"""

from __future__ import annotations

import os
import threading

from distrun.silence import BEAT_S


class Beat:
    """Writes a NUL byte, which both readers pass over wherever it stands, to each descriptor."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._fds: set[int] = set()
        self._ended = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def add(self, fd: int) -> None:
        """Begin to write to a descriptor that does not block."""
        with self._lock:
            self._fds.add(fd)

    def remove(self, fd: int) -> None:
        """Write no more to it; call before it is closed."""
        with self._lock:
            self._fds.discard(fd)

    def end(self) -> None:
        """Write no more to any."""
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.wait(BEAT_S):
            with self._lock:
                for fd in self._fds:
                    try:
                        os.write(fd, b"\0")
                    except OSError:
                        pass  # full, so that it has much to read; or gone, which is seen elsewhere

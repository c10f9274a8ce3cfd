"""A byte a second to every reader of the supervisor: it is alive, even if busy.

It runs in a thread: a disk that hangs for a minute stops the supervisor's loop, and must not
make the agents end the job. A supervisor that is stopped as a whole sends nothing.
"""

from __future__ import annotations

import os
import threading

from distrun.silence import BEAT_S


class Beat:
    """Writes a NUL byte, which readers ignore at any place, to each descriptor."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._fds: set[int] = set()
        self._ended = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def add(self, fd: int) -> None:
        """Begin to write to a non-blocking descriptor."""
        with self._lock:
            self._fds.add(fd)

    def remove(self, fd: int) -> None:
        """Stop writing to it; call before it is closed."""
        with self._lock:
            self._fds.discard(fd)

    def end(self) -> None:
        """Stop writing to all."""
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.wait(BEAT_S):
            with self._lock:
                for fd in self._fds:
                    try:
                        os.write(fd, b"\0")
                    except OSError:
                        pass  # full: its reader has much to read; or gone: other code notices

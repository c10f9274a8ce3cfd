"""Writes this rank's line of code to the boards ten times per second, for the other ranks."""

from __future__ import annotations

import atexit
import sys
import threading

from distrun.comm.checked.board import Board
from distrun.comm.site import user_site

_PERIOD_S = 0.1


class Watch:
    """Watches the thread that creates it, from a thread that uses some 0.5 ms of CPU per second.

    It exists only in checked mode: Python warns of a fork in a process with two threads.
    """

    def __init__(self) -> None:
        self._watched = threading.get_ident()
        self._boards: list[Board] = []
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="distrun-comm-watch", daemon=True)

    def add(self, board: Board) -> None:
        """Add a board to write to."""
        with self._lock:
            self._boards.append(board)
        if not self._thread.is_alive() and not self._stopped.is_set():
            self._thread.start()
            # A thread that is in c10d's store when the interpreter ends aborts the process.
            atexit.register(self._stop)

    def remove(self, board: Board) -> None:
        """Remove a board that is about to be closed. The thread ends after the last one."""
        with self._lock:
            self._boards = [each for each in self._boards if each is not board]
        if not self._boards:
            self._stop()
            atexit.unregister(self._stop)

    def _stop(self) -> None:
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(_PERIOD_S):
            place = str(user_site(sys._current_frames().get(self._watched)) or "")
            with self._lock:
                for board in self._boards:
                    board.locate(place)

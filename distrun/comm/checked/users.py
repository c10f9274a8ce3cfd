"""Tracks which threads of a rank call the collectives of a group: only one at a time may."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from types import FrameType

from distrun.comm import handle

_HANDLE = str(Path(handle.__file__))


class Users:
    """The threads of this rank that call the collectives of one group.

    Args:
        checker: The group's checker: inside a call, a frame's `self` has it as `_checker`.
    """

    def __init__(self, checker: object) -> None:
        self._checker = checker
        self._first = self._last = threading.get_ident()
        self._lock = threading.Lock()

    def enter(self) -> str | None:
        """Record the thread that calls.

        Returns:
            The name of another thread that is in a call at the same time.
        """
        me = threading.get_ident()
        if me == self._last:
            return None
        with self._lock:
            last, self._last = self._last, me
        return _name(last) if self._is_inside(last) else None

    def label(self) -> str:
        """Return the name of the thread that calls, "" for the first, and for autograd's.

        It differs between ranks whose threads make their calls in different orders.
        """
        if threading.get_ident() == self._first:
            return ""
        thread = threading.current_thread()
        return "" if isinstance(thread, threading._DummyThread) else thread.name

    def _is_inside(self, thread: int) -> bool:
        frame: FrameType | None = sys._current_frames().get(thread)
        found = False
        while frame is not None:
            if frame.f_code.co_filename == _HANDLE:
                return False  # it only waits for a started message: other threads may start more
            user = frame.f_locals.get("self")
            found = found or getattr(user, "_checker", None) is self._checker
            frame = frame.f_back
        return found


def _name(ident: int) -> str:
    return next((t.name for t in threading.enumerate() if t.ident == ident), f"thread {ident}")

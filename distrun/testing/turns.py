"""Runs ranks that are threads one at a time, in an order that is the same every time.

A rank runs until it waits for another. Then the next rank in rank order that can run continues. So
the order depends on the calls alone, a debugger has one rank at a time, and a deadlock is detected
at once.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable

_LOOK_S = 1.0


class Stalled(Exception):
    """Every rank waits for another."""


class Aborted(BaseException):
    """The run is over: this rank must end and report nothing."""


class Turns:
    """Decides which rank runs.

    Args:
        world_size: How many ranks there are; rank 0 begins.
        switch: Called with the rank that stops and the rank that continues.
    """

    def __init__(self, world_size: int, switch: Callable[[int, int], None]) -> None:
        self._lock = threading.Lock()
        self._wake = [threading.Condition(self._lock) for _ in range(world_size)]
        self._wants: list[Callable[[], bool] | None] = [_at_once] * world_size
        """What each rank waits for; None: it runs, or has ended."""
        self._ended: set[int] = set()
        self._holder: int | None = 0
        self._switch = switch
        self._stalled = False
        self._aborted = False

    def begin(self, rank: int) -> None:
        """Wait for the first turn of a rank; called on its thread."""
        with self._lock:
            while self._holder != rank:
                self._wake[rank].wait()
                self._end_if_aborted()
            self._wants[rank] = None

    def wait_until(self, rank: int, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Let the other ranks run until a condition that depends on them holds.

        Returns:
            Whether it holds. After the timeout this rank continues beside the rank that is running.

        Raises:
            Stalled: Every other rank waits too, and no condition holds.
            Aborted: The run is over.
        """
        with self._lock:
            self._end_if_aborted()
            if condition():
                return True
            self._wants[rank] = condition
            if self._holder in (rank, None):
                self._pass_on(rank)
            deadline = time.monotonic() + timeout_s
            while self._holder != rank and not self._aborted and not self._stalled:
                if not self._wake[rank].wait(min(_LOOK_S, max(0, deadline - time.monotonic()))):
                    if in_debugger():
                        deadline = time.monotonic() + timeout_s
                    elif time.monotonic() >= deadline:
                        break
            self._wants[rank] = None
            self._end_if_aborted()
            if condition():
                return True
            if self._stalled:
                raise Stalled
            return False

    def give_way(self, rank: int) -> None:
        """Let the other ranks that can run do so, then continue."""
        with self._lock:
            self._end_if_aborted()
            if self._holder != rank:
                return
            self._wants[rank] = _at_once
            self._pass_on(rank)
            while self._holder != rank:
                self._wake[rank].wait()
                self._end_if_aborted()
            self._wants[rank] = None

    def end(self, rank: int) -> None:
        """Give up the turn for good."""
        with self._lock:
            self._wants[rank] = None
            self._ended.add(rank)
            if self._holder in (rank, None):
                self._pass_on(rank)

    def abort(self) -> None:
        """Wake every rank that waits, to end it."""
        with self._lock:
            self._aborted = True
            for waiting_rank in self._wake:
                waiting_rank.notify()

    def _pass_on(self, rank: int) -> None:
        """Give the turn to the next rank that can continue."""
        count = len(self._wake)
        for step in range(1, count + 1):
            other = (rank + step) % count
            condition = self._wants[other]
            if condition is not None and condition():
                self._holder = other
                if other != rank:
                    self._switch(rank, other)
                self._wake[other].notify()
                return
        self._holder = None
        waiting = {r for r, condition in enumerate(self._wants) if condition is not None}
        if waiting and len(waiting | self._ended) == count:  # nobody runs on after a timeout
            self._stalled = True
            for waiting_rank in self._wake:
                waiting_rank.notify()

    def _end_if_aborted(self) -> None:
        if self._aborted:
            raise Aborted


def _at_once() -> bool:
    return True


def in_debugger() -> bool:
    """Return whether a thread of this process is in pdb: timeouts are then suspended."""
    for frame in sys._current_frames().values():
        step = frame
        while step is not None:
            if step.f_globals.get("__name__") in ("pdb", "bdb"):
                return True
            step = step.f_back  # type: ignore[assignment] # None at the bottom
    return False

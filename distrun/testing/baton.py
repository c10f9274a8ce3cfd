"""One thread runs at a time: threads as ranks, in an order that is the same every time.

A rank runs until it waits for another; then the next in rank order goes on that can. So what
interleaves is decided by the calls alone, a debugger is alone with its rank, and when no rank
can go on it is known at once.
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
    """The run is over: this rank is to end without a word."""


class Baton:
    """Whose turn it is.

    Args:
        world_size: How many ranks there are; rank 0 begins.
        switch: Called with the rank that stops and the one that goes on.
    """

    def __init__(self, world_size: int, switch: Callable[[int, int], None]) -> None:
        self._lock = threading.Lock()
        self._turns = [threading.Condition(self._lock) for _ in range(world_size)]
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
                self._turns[rank].wait()
                self._end_if_aborted()
            self._wants[rank] = None

    def wait_until(self, rank: int, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Let the others run until a condition holds that only they can bring about.

        Returns:
            Whether it holds. After the timeout this rank goes on beside whoever is running.

        Raises:
            Stalled: All the others wait too, and for nothing that holds.
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
                if not self._turns[rank].wait(min(_LOOK_S, max(0, deadline - time.monotonic()))):
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
        """Let those of the others run who can, and then go on."""
        with self._lock:
            self._end_if_aborted()
            if self._holder != rank:
                return
            self._wants[rank] = _at_once
            self._pass_on(rank)
            while self._holder != rank:
                self._turns[rank].wait()
                self._end_if_aborted()
            self._wants[rank] = None

    def end(self, rank: int) -> None:
        """Hand on the baton for good."""
        with self._lock:
            self._wants[rank] = None
            self._ended.add(rank)
            if self._holder in (rank, None):
                self._pass_on(rank)

    def abort(self) -> None:
        """Wake every rank that waits, to end it."""
        with self._lock:
            self._aborted = True
            for turn in self._turns:
                turn.notify()

    def _pass_on(self, rank: int) -> None:
        """Give the turn to the next rank that can go on."""
        count = len(self._turns)
        for step in range(1, count + 1):
            other = (rank + step) % count
            condition = self._wants[other]
            if condition is not None and condition():
                self._holder = other
                if other != rank:
                    self._switch(rank, other)
                self._turns[other].notify()
                return
        self._holder = None
        waiting = {r for r, condition in enumerate(self._wants) if condition is not None}
        if waiting and len(waiting | self._ended) == count:  # nobody runs on after a timeout
            self._stalled = True
            for turn in self._turns:
                turn.notify()

    def _end_if_aborted(self) -> None:
        if self._aborted:
            raise Aborted


def _at_once() -> bool:
    return True


def in_debugger() -> bool:
    """Say whether some thread of this process stands in pdb: then no clock runs out."""
    for frame in sys._current_frames().values():
        step = frame
        while step is not None:
            if step.f_globals.get("__name__") in ("pdb", "bdb"):
                return True
            step = step.f_back  # type: ignore[assignment] # None at the bottom
    return False

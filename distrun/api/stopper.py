"""Ends a run whose nodes were started by a scheduler."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable

_POLL_S = 0.1


class Stopper(ABC):
    """Ends the job of a run: gently first, by force when the ranks have had their grace."""

    def __init__(self) -> None:
        self.cancelled = False
        """Whether it was ended by force."""
        self._cancel_at: float | None = None

    def begin(self) -> None:
        """Ask it to end.

        Raises:
            MachineError: The scheduler does not answer, or refuses it.
        """
        if (limit_s := self._ask()) is None:
            self.cancel()
        else:
            self._cancel_at = time.monotonic() + limit_s

    def cancel(self) -> None:
        """End it by force.

        Raises:
            MachineError: The scheduler does not answer, or refuses it.
        """
        self._cancel_at, self.cancelled = None, True
        self._force()

    def tick(self) -> None:
        """End it by force if its time is over; called again and again.

        Raises:
            MachineError: The scheduler does not answer, or refuses it.
        """
        if self._cancel_at is not None and time.monotonic() >= self._cancel_at:
            self.cancel()

    @abstractmethod
    def _ask(self) -> float | None:
        """Ask it to end; return how long it may take, None if it does not run."""

    @abstractmethod
    def _force(self) -> None:
        """Kill it."""


def stop_and_wait(
    stopper: Stopper, over: Callable[[], bool], *, force: bool, limit_s: float
) -> None:
    """End a job, and wait until it is over, or a time has passed.

    Args:
        stopper: Ends it.
        over: Returns whether it is over.
        force: Do not ask it first.
        limit_s: How long to wait.
    """
    deadline = time.monotonic() + limit_s
    if force:
        stopper.cancel()
    else:
        stopper.begin()
    while not over() and time.monotonic() < deadline:
        stopper.tick()
        time.sleep(_POLL_S)

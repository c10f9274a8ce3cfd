"""Ends a run whose nodes were started by a scheduler."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

_POLL_S = 0.1


class Stopper(Protocol):
    """What ends the job of a run: gently first, by force after the ranks' grace."""

    cancelled: bool
    """Whether it was ended by force."""

    def begin(self) -> None:
        """Ask it to end."""

    def cancel(self) -> None:
        """End it by force."""

    def tick(self) -> None:
        """End it by force if its time is over; called again and again."""


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

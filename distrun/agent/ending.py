"""How a node ends: its ranks, and all that they have started, get what is left of the grace."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Protocol

from distrun.agent.leftovers import Leftovers, names_of
from distrun.agent.rank import Rank
from distrun.processes import LeftBehind, reap_children

_LOOK_S = 0.05
_UNTOLD_S = 0.5  # leftovers of a rank often end by themselves within this time
_AFTER_LINGER_S = 2.0
"""From SIGTERM to SIGKILL for processes that have lingered too long."""


class Tell(Protocol):
    """Sends an event to the supervisor."""

    def __call__(self, name: str, **fields: object) -> None:
        """Send the event `name`, with its fields."""


class Ending:
    """Stops a node on command, or ends it after all ranks ended with 0.

    Args:
        tag: The mark of the node's processes.
        beside: Returns the agent's own children: what forks its ranks, and what samples the node.
        tell: Sends events to the supervisor.
    """

    def __init__(self, tag: str, beside: Callable[[], Collection[int]], tell: Tell) -> None:
        self.begun = False
        """The ranks are told to stop."""
        self.stopped = False
        """They, and what they had started, have ended or were killed."""
        self.over = False
        """Nothing is left to wait for."""
        self._tell = tell
        self._leftovers = Leftovers(tag, beside)
        self._released = False
        self._signum = int(signal.SIGTERM)
        self._killed = False
        self._kill_at: float | None = None
        self._linger_until: float | None = None
        self._told_at: float | None = None

    def stop(self, signum: int, grace_s: float, live: Sequence[Rank]) -> None:
        """Send ranks, and leftovers of ended ones, a signal; a second stop gives no more time."""
        self.begun = True
        self._signum = signum
        for rank in live:
            rank.ask_to_stop(signum)
        kill_at = time.monotonic() + grace_s
        self._kill_at = min(self._kill_at or kill_at, kill_at)
        self._linger_until = None
        self._leftovers.find(now=True)

    def kill(self, live: Sequence[Rank]) -> None:
        """Kill what is left, and report the leftovers by name."""
        self.begun = self._killed = True
        self._kill_at = None
        for rank in live:
            rank.kill()
        if left := self._leftovers.find(now=True):
            self._kill_leftovers(left)
        reap_children()

    def _kill_leftovers(self, left: dict[int, LeftBehind]) -> None:
        self._tell("killed", processes=names_of(left))
        self._leftovers.kill()

    def leave(self, linger_s: float) -> None:
        """Give leftovers of the ranks some time to finish; then the node is over."""
        now = time.monotonic()
        self._released = True
        self._linger_until, self._told_at = now + linger_s, now + _UNTOLD_S
        self._leftovers.find(now=True)

    def due(self) -> Iterator[float]:
        """Yield the times at which to look again."""
        if self._kill_at is not None:
            yield self._kill_at
        if self._released and not self._leftovers.any:
            yield 0.0
        elif self._released or (self.begun and not self.stopped):
            yield time.monotonic() + _LOOK_S

    def on_time(self, live: Sequence[Rank]) -> None:
        """Do what is due."""
        if self._kill_at is not None and time.monotonic() >= self._kill_at:
            self.kill(live)
        if self._linger_until is not None:
            self._linger(self._linger_until)
        elif self.begun and not self.stopped:
            left = self._leftovers.find(now=not live)
            if left and self._killed:  # of ranks that were killed: their time is over too
                self._kill_leftovers(left)
                left = {}
            self._leftovers.tell(self._signum)
            if not live and not left:
                self.stopped = True
                self._tell("node_stopped")
        if self._released and self.stopped and self._linger_until is None:
            self.over = True

    def _linger(self, until: float) -> None:
        left, now = self._leftovers.find(), time.monotonic()
        if not left:
            self.over = True
        elif now >= until and self._kill_at is None:
            self._leftovers.tell(signal.SIGTERM)
            self._kill_at = now + _AFTER_LINGER_S
        elif self._told_at is not None and now >= self._told_at:
            self._told_at = None
            self._tell("lingering", processes=names_of(left), left_s=math.ceil(until - now))

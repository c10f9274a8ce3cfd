"""Ranks that run for long after others have ended: which, and where they are."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from distrun.diagnose.places import grouped, place_of

_ANSWER_S = 5.0


class Stragglers:
    """Notices when some ranks have ended, and no other has for a while.

    Args:
        notice_s: How long a while is; 0 for never.
    """

    def __init__(self, notice_s: float) -> None:
        self._notice_s = notice_s
        self._ended: list[int] = []
        self._ask_at: float | None = None
        self._asked_at: float | None = None
        self._stacks: dict[int, str] = {}

    def ended(self, rank: int) -> None:
        """Note that a rank has ended."""
        self._ended.append(rank)
        self._ask_at = time.monotonic() + self._notice_s if self._notice_s else None

    def asks(self, live: Sequence[int]) -> bool:
        """Return whether to ask the live ranks now where they are; true once after each end."""
        if self._ask_at is None or not live or time.monotonic() < self._ask_at:
            return False
        self._ask_at = None
        self._asked_at, self._stacks = time.monotonic(), {}
        return True

    def stacks_came(self, rank: int, stacks: str) -> None:
        """Note the stacks of a rank."""
        self._stacks[rank] = stacks

    def news(self, live: Sequence[int]) -> dict[str, Any] | None:
        """Return the event when the stacks are there, or are overdue."""
        if self._asked_at is None:
            return None
        if set(live) > self._stacks.keys() and time.monotonic() < self._asked_at + _ANSWER_S:
            return None
        self._asked_at = None
        where = grouped({rank: place_of(self._stacks.get(rank, "")) for rank in live})
        return {"ended": sorted(self._ended), "where": where, "for_s": self._notice_s}

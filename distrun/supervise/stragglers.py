"""Ranks that run for long after others have ended: which, and where they are."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from distrun.diagnose.places import grouped, place_of
from distrun.supervise.whereabouts import Answer


class Stragglers:
    """Notices when some ranks have ended, and no other has for a while.

    Args:
        notice_s: How long a while is; 0 for never.
    """

    def __init__(self, notice_s: float) -> None:
        self._notice_s = notice_s
        self._ended: list[int] = []
        self._ask_at: float | None = None

    def ended(self, rank: int) -> None:
        """Note that a rank has ended."""
        self._ended.append(rank)
        self._ask_at = time.monotonic() + self._notice_s if self._notice_s else None

    def asks(self, live: Sequence[int]) -> bool:
        """Return whether to ask the live ranks now where they are; true once after each end."""
        if self._ask_at is None or not live or time.monotonic() < self._ask_at:
            return False
        self._ask_at = None
        return True

    def news(self, answers: Mapping[int, Answer]) -> dict[str, Any]:
        """Return the event about those who still run, when they have answered."""
        where = grouped({rank: place_of(found.stacks) for rank, found in answers.items()})
        return {"ended": sorted(self._ended), "where": where, "for_s": self._notice_s}

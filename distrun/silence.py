"""Measures how long the other side of a channel between two processes has been silent.

Each side sends one byte per second. So silence means that the other side is stopped or stuck, or
that the connection is lost.
"""

from __future__ import annotations

import time

BEAT_S = 1.0
"""How often each side sends a heartbeat."""
TOLD_AFTER_S = 10.0
"""A silence this long is shown on the screen."""
LOST_AFTER_S = 30.0
"""After a silence this long the other side counts as lost."""
_ASLEEP_S = 5.0


class Silence:
    """How long another process has been silent while this one was running.

    Call `seconds` about once per second: a longer pause means that this process itself did not run
    (it was stopped, or its machine was suspended), and the count starts again.
    """

    def __init__(self) -> None:
        self._heard_at = self._asked_at = time.monotonic()
        self._told = False

    def heard(self) -> None:
        """Record that the other process has sent something."""
        self._heard_at = time.monotonic()
        self._told = False

    def seconds(self) -> float:
        """Return how long it has been silent."""
        now = time.monotonic()
        if now - self._asked_at > _ASLEEP_S:
            self.heard()
        self._asked_at = now
        return now - self._heard_at

    @property
    def lost(self) -> bool:
        """Whether it has been silent for so long that it counts as lost."""
        return self.seconds() >= LOST_AFTER_S

    @property
    def to_be_told(self) -> bool:
        """Whether to report the silence now: True once per silence."""
        if self._told or self.seconds() < TOLD_AFTER_S:
            return False
        self._told = True
        return True

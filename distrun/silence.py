"""Who has said nothing for how long: the clock between any two processes of a run.

Each side sends a byte a second, so that silence means that the other one cannot speak: it
is stopped, stuck, or cut off.
"""

from __future__ import annotations

import time

BEAT_S = 1.0
"""How often each side says that it is there."""
TOLD_AFTER_S = 10.0
"""A silence this long is told on the screen."""
LOST_AFTER_S = 30.0
"""After a silence this long the other side is given up."""
_ASLEEP_S = 5.0


class Silence:
    """How long another process has said nothing, while this one was awake to hear it.

    Ask for `seconds` every second or so: a longer pause says that this process itself did not
    run (it was stopped, or its machine slept), and the count begins anew.
    """

    def __init__(self) -> None:
        self._heard_at = self._asked_at = time.monotonic()
        self._told = False

    def heard(self) -> None:
        """Note a word of the other process."""
        self._heard_at = time.monotonic()
        self._told = False

    def seconds(self) -> float:
        """Return for how long it has said nothing."""
        now = time.monotonic()
        if now - self._asked_at > _ASLEEP_S:
            self.heard()
        self._asked_at = now
        return now - self._heard_at

    @property
    def lost(self) -> bool:
        """It has been silent for so long that it is given up."""
        return self.seconds() >= LOST_AFTER_S

    @property
    def to_be_told(self) -> bool:
        """It has been silent for long; True once in a silence."""
        if self._told or self.seconds() < TOLD_AFTER_S:
            return False
        self._told = True
        return True

"""How far training came in one attempt: what its ranks report of steps and checkpoints."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any


@dataclass
class Steps:
    """The steps of one attempt; all None for a script that reports nothing."""

    begun_at: int | None = None
    """Steps that were done when it began: 0, or those of the checkpoint that it resumed from."""
    last: int | None = None
    """The last step that was reported."""
    saved: int | None = None
    """The step of its last checkpoint."""
    save_s: float = 0.0
    """The longest time that a checkpoint took."""
    preempted: int | None = None
    """The step after which all ranks ended, because they were asked to."""
    _first: tuple[int, float] | None = None
    _last_at: float = 0.0

    def on_metrics(self, step: int) -> None:
        """Note a step that a rank has reported."""
        now = time.monotonic()
        self._first = self._first or (step, now)
        if self.last is None or step >= self.last:
            self.last, self._last_at = step, now

    def on_milestone(self, event: dict[str, Any]) -> None:
        """Note that training has begun, saved a checkpoint, or ends because it was asked to."""
        what, step = event["what"], event["step"]
        if what == "begun":
            self.begun_at = step
        elif what == "saved":
            self.saved = max(step, self.saved or 0)
            self.save_s = max(self.save_s, event["time_s"])
        elif what == "preempted":
            self.preempted = step

    @property
    def begun(self) -> int | None:
        """Steps that were done when it began: as it says, else those before its first report."""
        if self.begun_at is not None:
            return self.begun_at
        return None if self._first is None else max(0, self._first[0] - 1)

    @property
    def reports(self) -> bool:
        """Whether the script says which step it is at."""
        return self.begun_at is not None or self.last is not None

    @property
    def furthest(self) -> int:
        """The last step that it has reported, or saved; -1 if none."""
        return max(-1 if self.last is None else self.last, -1 if self.saved is None else self.saved)

    @property
    def kept(self) -> int | None:
        """The step that the next attempt can begin after; None if that is unknown."""
        return self.begun if self.saved is None else self.saved

    @property
    def lost(self) -> int:
        """Steps that were done since the last checkpoint."""
        return max(0, (self.last or 0) - (self.kept or 0)) if self.last is not None else 0

    @property
    def step_s(self) -> float | None:
        """The time of a step; None for fewer than two."""
        if self._first is None or self.last is None or self.last == self._first[0]:
            return None
        return (self._last_at - self._first[1]) / (self.last - self._first[0])

    def useful_s(self, *, failed: bool) -> float | None:
        """Return the time of the steps that count: all, or those up to the last checkpoint."""
        if self.step_s is None or self.last is None or self._first is None:
            return None
        done = self.last - self._first[0] + 1
        return max(0.0, self.step_s * (done - (self.lost if failed else 0)))

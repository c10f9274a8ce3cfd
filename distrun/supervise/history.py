"""What each attempt of a run was: for the record, and as an event."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from distrun.diagnose.failures import Failure
from distrun.runs.record import is_int, is_number
from distrun.supervise.world import World


@dataclass
class History:
    """The attempts of a run, oldest first, those of earlier launches included."""

    attempts: list[dict[str, Any]] = field(default_factory=list)
    _began_at: float = 0.0

    def begin(self) -> None:
        """Note that an attempt begins."""
        self._began_at = time.time()

    def end(self, world: World, failure: Failure | None, outcome: str) -> dict[str, Any]:
        """Note how an attempt has ended; return that.

        Args:
            world: The attempt.
            failure: What has ended it; None: it ended well, or somebody ended the run.
            outcome: That of the run, if this ends it; else "".
        """
        steps, now = world.steps, time.time()
        if steps.begun is not None:
            _amend(self.attempts, steps.begun)
        useful_s = steps.useful_s(failed=failure is not None)
        told = {
            "attempt": world.restarts + 1,
            "began_at": round(self._began_at, 3),
            "duration_s": round(now - self._began_at, 3),
            "nodes": [node.host for node in world.plan.nodes],
            "failure": failure.kind if failure else "",
            "outcome": outcome,
            "why": failure.why if failure else "",
            "begun_at": steps.begun,
            "last_step": steps.last,
            "saved_step": steps.saved,
            "lost_steps": steps.lost if failure else 0,
            "step_s": steps.step_s,
            "useful_s": None if useful_s is None else round(useful_s, 3),
        }
        self.attempts.append(told)
        return told


def _amend(attempts: Sequence[dict[str, Any]], begun: int) -> None:
    """Count what an attempt has lost by where the next one begins: a script may save by itself.

    Args:
        attempts: Those before; of a resumed run they come from its record.
        begun: Steps that were done when this one began.
    """
    before = next((each for each in reversed(attempts) if each.get("last_step")), None)
    if before is None or not before.get("failure"):
        return
    last, first, step_s = (before.get(name) for name in ("last_step", "begun_at", "step_s"))
    if not is_int(last):
        return
    before["lost_steps"] = max(0, last - begun)
    if is_number(step_s) and is_int(first):
        useful_s = step_s * (last - first - before["lost_steps"])
        before["useful_s"] = round(max(0.0, useful_s), 3)

"""Where the time of a run went: start, train, save, wait, lost, restart, end.

- start: from the launch to the first step that was logged.
- restart: the same of each later attempt.
- train: steps that count, without the parts below.
- save: what training waited for checkpoints (`save_s` of the metrics).
- wait: from the last progress of a run that hung to its end.
- lost: steps that a later attempt did again, and the time from the last step to a failure.
- end: from the last step to the end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from distrun.report.lines import Line, Numbers
from distrun.report.story import Attempt

KINDS = ("train", "start", "restart", "save", "wait", "lost", "end")
WORDS = {
    "train": "steps that count",
    "start": "from the launch to the first step",
    "restart": "the same of later attempts",
    "save": "training waited for checkpoints",
    "wait": "ranks waited for a rank that did not come",
    "lost": "steps done again, and the time to a failure",
    "end": "after the last step",
}


@dataclass
class Goodput:
    """Seconds of each kind."""

    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(KINDS, 0.0))

    @property
    def total_s(self) -> float:
        """The duration of the run."""
        return sum(self.seconds.values())

    @property
    def share(self) -> float:
        """The share of the time in steps that count."""
        return self.seconds["train"] / self.total_s if self.total_s else 0.0


def goodput(
    attempts: Sequence[Attempt],
    numbers: Numbers,
    times: tuple[float, float],
    waited_s: float = 0.0,
    *,
    failed: bool = False,
) -> Goodput | None:
    """Return where the time went; None if no rank has logged a step.

    Args:
        attempts: The attempts.
        numbers: The metrics.
        times: When the run was started, and when it ended, or its last sign of life.
        waited_s: For how long ranks of a run that hung have waited.
        failed: A failure ended the run.
    """
    steps = _steps(numbers)
    if not steps:
        return None
    found, (at, end) = Goodput(), times
    for index, attempt in enumerate(attempts):
        is_last = index == len(attempts) - 1
        over = max(at, end if is_last else attempts[index + 1].begin)
        own = [(step, time) for step, time in steps.get(attempt.number, ()) if at <= time <= over]
        kind = "restart" if index else "start"
        if not own:
            found.seconds[kind] += over - at
            at = over
            continue
        later = steps.get(attempt.number + 1)
        again = later[0][0] if later else math.inf
        first_at, last_at = own[0][1], own[-1][1]
        good_until = max((time for step, time in own if step < again), default=first_at)
        waited = min(over - last_at, waited_s) if is_last else 0.0
        rest = "lost" if (failed if is_last else attempt.failed) else "end"
        found.seconds[kind] += first_at - at
        found.seconds["train"] += good_until - first_at
        found.seconds["lost"] += last_at - good_until
        found.seconds["wait"] += waited
        found.seconds[rest] += over - last_at - waited
        at = over
    first: dict[int, Line] = {}  # all ranks save at once: those of one rank count
    for line in numbers.of("save_s"):
        first.setdefault(line.attempt, line)
    _move_saves(found, sum(sum(line.finite) for line in first.values()))
    return found


def _move_saves(found: Goodput, saved_s: float) -> None:
    """Take the time of saving out of that of training, and of the end for the last one."""
    for kind in ("train", "end"):
        part = min(saved_s, found.seconds[kind])
        found.seconds[kind] -= part
        found.seconds["save"] += part
        saved_s -= part


def _steps(numbers: Numbers) -> dict[int, list[tuple[float, float]]]:
    """Return (step, time) of each attempt, by the lowest rank that has logged the most."""
    best: dict[int, list[tuple[float, float]]] = {}
    for (_, _, attempt), line in sorted(numbers.lines.items(), key=lambda each: each[0][1:]):
        if len(line.steps) > len(best.get(attempt, ())):
            best[attempt] = list(zip(line.steps, line.times, strict=True))
    return best

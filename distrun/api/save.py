"""Asks a running run for a checkpoint."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from distrun.api import runs
from distrun.api.running import require_running
from distrun.errors import MachineError, UsageError
from distrun.runs.directory import RunDirectory
from distrun.signals import SAVE

_HINT = "two lines in its loop, of distrun.train.preempt, let it take part"
_LONG_S = 10.0
_WAITS = "the ranks save after the step that they are in, if their loop asks preempt.save_wanted()"

__all__ = ["Saved", "save"]


@dataclass(frozen=True)
class Saved:
    """A checkpoint that was asked for."""

    run_id: str
    step: int
    """Steps that were done when it was made."""
    time_s: float
    """How long it took to write."""


def save(
    run: RunDirectory, *, timeout_s: float, tell: Callable[[str], None] = lambda _: None
) -> Saved:
    """Ask the ranks of a run for a checkpoint, and wait until it is whole; the run goes on.

    Args:
        run: The run.
        timeout_s: How long to wait.
        tell: Called with a line if it takes long.

    Raises:
        UsageError: It is not running here, or no rank takes part.
        MachineError: Its supervisor does not answer, or no checkpoint is there in time.
    """
    record = require_running(run, SAVE, "save")
    news = runs.events(run, follow=True)
    for event in news:  # what has happened before
        if not event:
            break
    record.supervisor.signal(SAVE)
    began_at, is_told = time.monotonic(), False
    for event in news:
        waited_s = time.monotonic() - began_at
        if event.get("event") == "signal_forwarded" and event["signal"] == SAVE:
            _require_takers(run, event)
        if event.get("event") == "milestone" and event["what"] == "saved":
            return Saved(run.run_id, int(event["step"]), float(event["time_s"]))
        if waited_s > _LONG_S and not is_told:
            is_told = True
            tell(f"no checkpoint after {_LONG_S:g} s: {_WAITS}")
        if waited_s > timeout_s:
            raise MachineError(
                f"run {run.run_id} has not saved within {timeout_s:g} s",
                "a checkpoint is made after the step that the ranks are in; --timeout waits longer",
            )
    raise UsageError(f"run {run.run_id} has ended meanwhile")


def _require_takers(run: RunDirectory, event: dict[str, Any]) -> None:
    """Refuse a run one of whose ranks does not take part: the others would wait for it."""
    if event["deaf"]:
        ranks = ", ".join(map(str, event["deaf"]))
        several = "s" * (len(event["deaf"]) > 1)
        raise UsageError(f"rank{several} {ranks} of {run.run_id} cannot be asked to save", _HINT)

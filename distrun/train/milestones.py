"""What the launcher is told of training: where it begins, its checkpoints, and a preemption.

Without distrun around the script (bare torchrun, plain python) they do nothing.
"""

from __future__ import annotations

import json
import os

from distrun.env import report_fd


def begun(step: int) -> None:
    """Report that training begins after a step; call it on one rank.

    Args:
        step: 0, or the step of the checkpoint that it resumes from.
    """
    _report("begun", step)


def saved(step: int, time_s: float) -> None:
    """Report a checkpoint that is whole; call it on one rank.

    Args:
        step: Steps done when it was made.
        time_s: The time from the copy of the state to the last byte.
    """
    _report("saved", step, time_s)


def preempted(step: int) -> None:
    """Report that all ranks end after a step because they were asked to; call it on one rank."""
    _report("preempted", step)


def _report(what: str, step: int, time_s: float = 0.0) -> None:
    if (fd := report_fd()) is None:
        return
    record = {"report": "milestone", "what": what, "step": int(step), "time_s": float(time_s)}
    try:
        os.write(fd, json.dumps(record).encode() + b"\n")
    except OSError:
        pass  # the agent is gone: training continues, the launcher reports why

"""Slurm's warning to the launch in a job: the time limit is near, and the ranks are to end."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distrun.api.in_job import Submitted
    from distrun.api.launch import LaunchResult, SupervisorClient

_WHY = "Slurm's warning that the job's time limit is near (SIGTERM)"
_SHARE = 3


class JobWarning:
    """Ends the ranks some time after the warning, and has the job put back in the queue.

    Ranks that handle SIGUSR2 have a third of the time until the limit to end by themselves.

    Args:
        submitted: The run that the job was submitted for; None: this is no such launch.
    """

    def __init__(self, submitted: Submitted | None) -> None:
        self._submitted = submitted
        self._stop_at: float | None = None
        self._warned = False

    def on_signal(self, signum: int) -> None:
        """Note a signal of this process."""
        if self._submitted is not None and signum == signal.SIGUSR2 and not self._warned:
            self._warned = True
            self._stop_at = time.monotonic() + self._submitted.warn_s / _SHARE

    def check(self, client: SupervisorClient) -> None:
        """End the ranks when it is time."""
        if self._stop_at is not None and time.monotonic() >= self._stop_at:
            self._stop_at = None
            client.signal(signal.SIGTERM, _WHY)

    def after(self, result: LaunchResult) -> str:
        """Ask for a requeue if that is why the run has ended; return a line for the user."""
        if self._submitted is None or not result.exit_code:
            return ""
        from distrun.api.in_job import ask_for_requeue

        warned = self._warned and result.outcome in ("terminated", "preempted")
        return ask_for_requeue(self._submitted, warned=warned)

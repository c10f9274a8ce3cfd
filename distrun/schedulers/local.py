"""This machine: every node is an agent here, a child of the run's supervisor."""

from __future__ import annotations

import signal

from distrun.plan.model import LaunchPlan
from distrun.processes import send, start_time
from distrun.runs.directory import RunDirectory
from distrun.runs.record import RunRecord
from distrun.supervise.client import SupervisorClient, start_supervisor


def submit(
    plan: LaunchPlan,
    run: RunDirectory,
    record: RunRecord,
    *,
    detached: bool = False,
    stdin_fd: int | None = None,
) -> SupervisorClient:
    """Start the run; its supervisor reports to the client that is returned."""
    return start_supervisor(plan, run, record, detached=detached, stdin_fd=stdin_fd)


def cancel(record: RunRecord) -> bool:
    """Ask a running run to end, as SIGTERM would; asked again, it kills its ranks.

    Returns:
        False if it is not running.
    """
    pid = record.supervisor_pid
    if not pid or start_time(pid) != record.supervisor_start:
        return False
    return send(pid, signal.SIGTERM)

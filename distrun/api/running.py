"""Which run a command may ask: one that is supervised by a process that this one can signal."""

from __future__ import annotations

import shlex

from distrun.api import runs
from distrun.errors import UsageError
from distrun.runs.directory import RunDirectory
from distrun.runs.record import RunRecord


def require_running(run: RunDirectory, signum: int, command: str) -> RunRecord:
    """Return the record of a run; refuse one that is over, elsewhere, or of an older distrun.

    Args:
        run: The run.
        signum: The signal that asks its supervisor; 0: this system has none.
        command: The command that asks, for messages.

    Raises:
        UsageError: It cannot be asked from here.
    """
    record = runs.find(run.path.parent, str(run.path))[1]
    if record.is_over:
        hint = f"how it ended: distrun show {run.run_id}"
        raise UsageError(f"run {run.run_id} is not running: it has ended", hint)
    if record.state != "running":
        hint = "ask where it was started: same machine, same container, same user"
        if record.job_id:
            where = f"srun --overlap --jobid {record.job_id} -N1 -n1 -r0"
            path = shlex.quote(str(run.path))
            hint = f"ask on the job's first node: {where} distrun {command} {path}"
        why = "its ranks cannot be asked from here"
        raise UsageError(f"run {run.run_id} is {record.state}: {why}", hint)
    if not signum or not record.supervisor.handles(signum):
        raise UsageError(f"run {run.run_id} was started by a distrun that has no `{command}`")
    return record

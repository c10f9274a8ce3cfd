"""The launch inside a job that `launch --on slurm` has submitted: it goes on in the same record."""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distrun import env
from distrun.errors import DistrunError, ExitCode, MachineError
from distrun.failures import BAD_NODE, GPU
from distrun.runs import record
from distrun.runs.directory import RunDirectory, reopened
from distrun.runs.record import RunRecord
from distrun.schedulers import slurm_commands

_JOB_ID_S = 10.0
"""sbatch has told the id of the job within this time after it was submitted."""
_POLL_S = 0.1
_NODES_NBYTES = 1 << 20
_HOST = re.compile(r"[\w.-]+", re.ASCII)


@dataclass(frozen=True)
class Submitted:
    """The run that the job around this process was submitted for."""

    run: RunDirectory
    before: RunRecord
    """As the submission, or the last attempt, has left it."""
    job_id: str

    @property
    def requeues(self) -> bool:
        """Whether the job may be put back in the queue."""
        return self.before.job.get("requeue") is True

    @property
    def warn_s(self) -> float:
        """How long before the time limit Slurm sends its warning."""
        value = self.before.job.get("warn_s")
        return float(value) if isinstance(value, int) else 0.0

    def record_of(self, new: RunRecord) -> RunRecord:
        """Return the record of the attempt that starts now."""
        before = self.before
        again = before.supervisor_pid > 0  # an attempt has begun before
        kept: dict[str, Any] = {"command": before.command, "job": before.job, "job_id": self.job_id}
        if again:
            kept |= {"started_at": before.started_at, "attempts": before.attempts + 1}
            kept |= {"history": before.history}
        return replace(new, **kept)


def submitted(environ: Mapping[str, str] = os.environ) -> Submitted | None:
    """Return the run of the job around this process; None if it was not submitted by us.

    Raises:
        MachineError: Its directory is not on this node.
    """
    path, job_id = environ.get(env.RUN, ""), environ.get("SLURM_JOB_ID", "")
    if not path or not job_id:
        return None
    try:
        run = reopened(Path(path))
        before = _with_job_id(run)
    except (OSError, ValueError) as error:
        raise MachineError(
            f"the run directory {path!r} cannot be used on {socket.gethostname()}:"
            f" {getattr(error, 'strerror', None) or error}",
            "submit from a directory that all nodes share, or let --runs-dir name one",
        ) from None
    if before.job_id not in ("", job_id):
        return None  # the variable is that of another job
    return Submitted(run, before, job_id)


def _with_job_id(run: RunDirectory) -> RunRecord:
    """Wait for the last word of the submission: from then on this process writes the record."""
    deadline = time.monotonic() + _JOB_ID_S
    while not (found := record.read(run)).job_id and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    return found


def forget_verdict(run: RunDirectory) -> None:
    """Take away the verdict of an earlier attempt."""
    if run.verdict.inode() is not None:
        run.verdict.replace_text("null\n")


@contextmanager
def refusals_recorded() -> Iterator[None]:
    """Write an error before the start into the record, if this is the launch in a job."""
    try:
        yield
    except DistrunError as error:
        try:
            found = submitted()
        except MachineError:
            found = None  # this is the error
        if found is not None:
            _record_refusal(found, error)
        raise


def _record_refusal(found: Submitted, error: DistrunError) -> None:
    """Write into the record why the launch in the job has not started anything."""
    outcome = "nodes missing" if error.exit_code == ExitCode.JOIN_TIMEOUT else "not started"
    now = record.ended(
        replace(found.before, job_id=found.job_id),
        *(outcome, int(error.exit_code), found.before.attempts),
        summary=error.message,
        hint=error.hint,
    )
    try:
        record.write(found.run, now)
    except OSError:
        pass  # it is printed too, into the log of the job


def ask_for_requeue(found: Submitted, *, warned: bool) -> str:
    """Put the job back in the queue, if it was warned or is preempted and asked for that.

    Slurm signals all processes of a job that it preempts, so ranks may seem to fail by themselves.
    A job that ends within Slurm's grace is not put back by Slurm itself (tried).

    Returns:
        A line for the user; "": nothing is to be done.
    """
    if not found.requeues:
        return ""
    try:
        if not warned and not _is_preempted(found.job_id):
            return ""
        slurm_commands.requeue(found.job_id)
    except DistrunError as error:
        return f"job {found.job_id} is not put back in the queue: {error.message}"
    _record_that_it_goes_on(found.run)
    return f"job {found.job_id} is put back in the queue{_without_bad_nodes(found)}"


def _without_bad_nodes(found: Submitted) -> str:
    """Keep the job from nodes that have proved bad; return that as the end of a line."""
    hosts = proven_bad(found.run)
    if not hosts:
        return ""
    names = ", ".join(hosts)
    try:
        slurm_commands.exclude(found.job_id, hosts)
    except DistrunError as error:
        return f"; {names} cannot be excluded: {error.message}"
    return f", without {names}"


def proven_bad(run: RunDirectory) -> list[str]:
    """Return the hosts of a run, in order, whose GPU failed, that failed first twice, or that did
    not pass their check."""
    try:
        noted = json.loads(run.nodes.read(_NODES_NBYTES))
    except (OSError, ValueError):
        return []
    told = [each for each in noted if isinstance(each, dict)] if isinstance(noted, list) else []
    hosts = {str(each.get("host")) for each in told if _is_proof(each)}
    return sorted(filter(_HOST.fullmatch, hosts))


def _is_proof(noted: Mapping[str, Any]) -> bool:
    check = noted.get("check")
    failed = bool(check.get("failed")) if isinstance(check, dict) else False
    return failed or noted.get("kind") in (GPU, BAD_NODE)


def _record_that_it_goes_on(run: RunDirectory) -> None:
    try:
        now = record.read(run)
        record.write(run, replace(now, ended_at=None, outcome="", exit_code=None))
    except (OSError, ValueError):
        pass  # those who follow the run ask Slurm too


def _is_preempted(job_id: str) -> bool:
    found = slurm_commands.status(job_id, patience_s=0)
    return found is not None and found.preempted

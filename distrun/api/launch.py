"""Launches a job: prepare, start, wait."""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distrun import __version__
from distrun.api import in_job
from distrun.api.prepare import Continued, Prepared, prepare
from distrun.checks.required import require_open_files, require_runs_dir
from distrun.errors import ExitCode
from distrun.plan.model import LaunchPlan
from distrun.processes import descriptor_limits
from distrun.runs import directory, known, record
from distrun.runs.directory import RunDirectory
from distrun.schedulers import local
from distrun.silence import LOST_AFTER_S
from distrun.spec import read
from distrun.spec.job import Job
from distrun.streams import NOTHING_HANDED, Streams
from distrun.supervise.client import SupervisorClient

if TYPE_CHECKING:
    from distrun.api.dialed import Head


@dataclass(frozen=True)
class LaunchResult:
    """How a run ended."""

    run_dir: Path
    outcome: str
    """succeeded, failed, interrupted, terminated, time limit, node lost, …"""
    exit_code: int
    """The exit code of `distrun launch`."""
    summary: str
    """The outcome as a sentence."""
    hint: str
    duration_s: float
    attempts: int
    verdict: dict[str, Any] | None
    """The rank that failed first, and its error; None if none failed."""


def start(
    prepared: Prepared,
    *,
    command: Sequence[str] = (),
    detached: bool = False,
    streams: Streams = NOTHING_HANDED,
) -> SupervisorClient:
    """Make the run directory and start the supervisor.

    Args:
        prepared: From `prepare`.
        command: The command line, for the record.
        detached: Whether the run continues when the caller ends.
        streams: stdin, stdout and stderr of the ranks.

    Raises:
        UsageError: The run directory cannot be made.
        MachineError: This user may not open so many files.
    """
    job, plan = prepared.job, prepared.plan
    elsewhere = all(node.command for node in plan.supervised)
    limit = descriptor_limits()[elsewhere]  # the supervisor raises its own where no rank has it
    nodes, ranks = len(plan.supervised), plan.supervised_ranks
    require_open_files(nodes, ranks, limit, is_hard=elsewhere)
    found: Continued | None = prepared.resumed or prepared.submitted
    if found is not None:
        run = found.run
        in_job.forget_verdict(run)
    else:
        run = _made(job.runs_dir, plan.run_id)
    run_record = record.RunRecord(
        run_id=plan.run_id,
        recipe=job.script,
        nnodes=plan.nnodes,
        nproc_per_node=plan.nproc_per_node,
        started_at=round(time.time(), 3),
        command=record.masked_command(command, plan.secrets),
        plan=record.masked(plan.to_json()),
        prediction=dict(prepared.prediction),
        versions=record.versions(prepared.site.head.node.software.torch, __version__),
    )
    if found is not None:
        run_record = found.record_of(run_record)
    return local.submit(
        plan, run, run_record, detached=detached, streams=streams, agents=prepared.agents
    )


def _made(runs_dir: Path, run_id: str) -> RunDirectory:
    try:
        run = directory.create(runs_dir, run_id)
    except OSError as error:
        require_runs_dir(runs_dir, error.strerror or str(error))
        raise
    known.add(runs_dir)
    return run


def launch(job: Job, *, resume: str = "") -> LaunchResult:
    """Run a job to its end and return the result; prints nothing.

    The output of the ranks is in `result.run_dir / "logs"`.

    Args:
        job: The job.
        resume: A run that has ended: this is its next attempt, in the same record.

    Raises:
        UsageError: The job is wrong.
        MachineError: The machine lacks something.
        KeyboardInterrupt: The caller was interrupted; the ranks were stopped.
    """
    prepared = prepare(*read.with_header(job), by_platform=True)
    if resume:
        from distrun.api.resume import onto

        prepared = onto(prepared, resume)
    code = int(ExitCode.INTERNAL)
    try:
        client = start(prepared)
        try:
            last = _last_event(client, prepared.head)
        except KeyboardInterrupt:
            client.signal(signal.SIGINT)
            code = int(_last_event(client, prepared.head).get("exit_code", code))
            raise
        result = result_of(client, last)
        code = result.exit_code
    finally:
        if prepared.head is not None:
            prepared.head.end(code)
    return result


def _last_event(client: SupervisorClient, head: Head | None) -> dict[str, Any]:
    last: dict[str, Any] = {}
    for event in client.events():
        if event.get("event") == "ended":
            last = event
        for signum in head.news() if head else ():
            client.signal(signum)
    return last


def result_of(client: SupervisorClient, ended: Mapping[str, Any]) -> LaunchResult:
    """Return the result of a run from its last event, or from its record.

    A client that was stopped may have missed the event. Without a record of the end too, the
    supervisor was killed.
    """
    if not ended:
        client.clean_up()
        if (recorded := _recorded(client.run)) is not None:
            return recorded
        return LaunchResult(
            client.run.path,
            "supervisor lost",
            ExitCode.INTERNAL,
            f"the supervisor (pid {client.pid})"
            + (
                f" said nothing for {LOST_AFTER_S:g} s and was killed: was it stopped?"
                if client.silent
                else " ended without a message"
            ),
            f"see {client.run.supervisor_log}",
            _since_start_s(client.run),
            1,
            None,
        )
    try:
        client.run.supervisor_log.remove_if_empty()
    except OSError:
        pass  # the run directory was removed meanwhile
    keys = ("outcome", "exit_code", "summary", "hint", "duration_s", "attempts", "verdict")
    return LaunchResult(client.run.path, **{key: ended[key] for key in keys})


def _since_start_s(run: RunDirectory) -> float:
    try:
        return round(time.time() - record.read(run).started_at, 1)
    except (OSError, ValueError):
        return 0.0


def _recorded(run: RunDirectory) -> LaunchResult | None:
    try:
        found = record.read(run)
    except (OSError, ValueError):
        return None
    if found.ended_at is None or found.exit_code is None:
        return None
    return LaunchResult(
        run.path,
        found.outcome,
        found.exit_code,
        found.summary,
        found.hint,
        round(found.ended_at - found.started_at, 1),
        found.attempts,
        record.verdict(run),
    )


__all__ = [
    "LaunchPlan",
    "LaunchResult",
    "Prepared",
    "SupervisorClient",
    "launch",
    "prepare",
    "result_of",
    "start",
]

"""Submits a job to Slurm: the script, the run directory, the record."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from distrun import env
from distrun.api.asked import Asked
from distrun.checks.required import require_runs_dir
from distrun.errors import MachineError, UsageError
from distrun.plan.model import Program
from distrun.runs import directory, known, record
from distrun.runs.directory import RunDirectory
from distrun.runs.record import RunRecord
from distrun.schedulers import slurm_commands
from distrun.schedulers.sbatch import Batch, render
from distrun.spec import read
from distrun.spec.job import Job

_WARN_S = 90
_WARN_SHARE = 3
"""Of a short job, the warning comes after two thirds of its time."""


@dataclass(frozen=True)
class Submission:
    """A job that may be submitted; nothing of it exists yet."""

    runs_dir: Path
    script: str
    """The batch script, whole."""
    record: RunRecord
    """As it will be written, without the job's id."""
    environ: Mapping[str, str]
    """Variables for the job that the script must not hold: the values are secret."""


def prepare_submission(
    asked: Asked, words: Sequence[str], *, command: Sequence[str] = ()
) -> Submission:
    """Check a job as far as that is possible without its nodes, and write its script.

    Args:
        asked: The job.
        words: The arguments of the launch inside the job.
        command: The command line, for the record and the script.

    Raises:
        UsageError: The job is wrong, or cannot be a batch job.
        MachineError: The runs directory cannot be used.
    """
    asked.hold()
    job = asked.job
    secrets = {name: value for name, value in job.env.items() if env.is_secret(name)}
    of_file = read.env_file(job.env_file) if job.env_file else {}
    run_id = asked.run_id(*directory.new_stamp())
    path = job.runs_dir.resolve() / run_id
    warn_s = _warning_s(job.slurm.time)
    masked = record.masked_command(command, {*secrets, *of_file})
    script = render(_batch(job, words, path, warn_s, masked))
    of_job = {"requeue": job.slurm.requeue, "warn_s": warn_s}
    written = asked.record(run_id, masked, job=of_job)
    return Submission(job.runs_dir, script, written, secrets)


def _batch(
    job: Job, words: Sequence[str], path: Path, warn_s: int, command: Sequence[str]
) -> Batch:
    asked = job.slurm
    gpus = (job.gpus or "").removeprefix("free:") if (job.gpus or "").startswith("free:") else ""
    ranks = job.nproc_per_node if isinstance(job.nproc_per_node, int) else int(gpus or 0)
    return Batch(
        name=Program(job.script, module=job.module).name,
        command=(sys.executable, "-m", "distrun", "launch", *words),
        workdir=str(Path.cwd()),
        output=str(path / "batch.log"),
        nodes=job.nodes.min + job.spare,
        max_nodes=job.nodes.max + job.spare if job.nodes.max > job.nodes.min else None,
        time_limit_s=None if asked.time is None else max(1, round(asked.time)),
        partition=asked.partition,
        account=asked.account,
        qos=asked.qos,
        constraint=asked.constraint,
        gpus_per_node=int(gpus) if gpus else None,
        cpus_per_task=ranks if gpus else None,
        requeue=asked.requeue,
        warn_s=warn_s,
        options=tuple(asked.sbatch.items()),
        variables=((env.RUN, str(path)),),
        made_by=("distrun", *command[1:]) if command else (),
    )


def _warning_s(limit_s: float | None) -> int:
    return _WARN_S if limit_s is None else min(_WARN_S, max(1, int(limit_s) // _WARN_SHARE))


def submit(submission: Submission) -> tuple[RunDirectory, RunRecord]:
    """Make the run directory, and submit the job.

    Returns:
        The run and its record, with the id of the job.

    Raises:
        UsageError: The run directory cannot be made.
        MachineError: Slurm refuses the job; then nothing is left of it here.
    """
    record_, runs_dir = submission.record, submission.runs_dir
    try:
        run = directory.create(runs_dir, record_.run_id)
    except OSError as error:
        require_runs_dir(runs_dir, error.strerror or str(error))
        raise
    run.job_script.replace_text(submission.script)
    record.write(run, record_)
    environ = {**env.scrubbed(os.environ), **submission.environ}
    try:
        job_id = slurm_commands.submit(submission.script, environ=environ)
    except slurm_commands.PerhapsSubmitted:
        known.add(runs_dir)
        raise  # the job may be there, and then needs the directory
    except (MachineError, UsageError):
        shutil.rmtree(run.path, ignore_errors=True)
        raise
    known.add(runs_dir)
    record_ = replace(record_, job_id=job_id)
    record.write(run, record_)  # until it is there the launch in the job writes nothing
    return run, record_

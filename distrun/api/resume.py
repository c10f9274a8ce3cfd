"""The next attempt of a run that has ended: the same record, and so one curve."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from distrun.api.prepare import Prepared
from distrun.errors import UsageError
from distrun.runs.directory import RunDirectory, reopened
from distrun.runs.listing import find
from distrun.runs.record import MASK, RunRecord


@dataclass(frozen=True)
class Resumed:
    """The run that a launch goes on with."""

    run: RunDirectory
    before: RunRecord
    """As its last attempt has left it."""

    def record_of(self, new: RunRecord) -> RunRecord:
        """Return the record of the attempt that starts now."""
        before = self.before
        return replace(
            new,
            command=before.command,
            started_at=before.started_at,
            attempts=before.attempts + 1,
            history=before.history,
        )


def onto(prepared: Prepared, name: str) -> Prepared:
    """Return a prepared job as the next attempt of a run.

    Args:
        prepared: The job.
        name: The name of the run, any part of it, a path, or latest.

    Raises:
        UsageError: The run is not over, or belongs to a scheduler, or cannot be read.
    """
    run, before = _over(prepared.job.runs_dir, name)
    try:
        held = reopened(run.path)
    except OSError as error:
        raise UsageError(f"run {run.run_id} cannot be used: {error.strerror}") from None
    plan = replace(prepared.plan, run_id=run.run_id)
    return replace(prepared, plan=plan, resumed=Resumed(held, before))


def recorded_words(runs_dir: Path, name: str) -> list[str]:
    """Return the arguments of the launch that has started a run; secret values are masked.

    Raises:
        UsageError: See `onto`; or it was started from another directory, or by the Python API.
    """
    run, before = _over(runs_dir, name)
    words = before.command
    if "launch" not in words:
        raise UsageError(
            f"run {run.run_id} was not started by a command line",
            "launch(job, resume=…) of the Python API goes on with it",
        )
    started_in = str(before.plan.get("workdir", ""))
    if started_in and started_in != str(Path.cwd()) and not any("--workdir" in w for w in words):
        raise UsageError(f"run {run.run_id} was started in {started_in}", f"cd {started_in}")
    return words[words.index("launch") + 1 :]


def _over(runs_dir: Path, name: str) -> tuple[RunDirectory, RunRecord]:
    run, before = find(runs_dir, name)
    if before.job:
        raise UsageError(
            f"run {run.run_id} is a job of a scheduler, which starts it again",
            "--requeue for Slurm, --retries for Kubernetes; or submit it anew",
        )
    if not before.is_over:
        raise UsageError(f"run {run.run_id} is {before.state}", f"distrun stop {run.run_id}")
    if before.outcome == "succeeded":
        raise UsageError(f"run {run.run_id} has succeeded: there is nothing to go on with")
    return run, before


def is_masked(word: str) -> bool:
    """Return whether the record holds a word without its secret value."""
    return word.endswith(f"={MASK}")

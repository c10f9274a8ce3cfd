"""Runs that were submitted to Slurm, as seen from where they were submitted.

The launch in the job writes the record. What it could not write, because the job never started or
was killed, is written here when Slurm says that the job is over.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from distrun.api import stopper
from distrun.errors import DistrunError, ExitCode, MachineError, UsageError
from distrun.runs import record
from distrun.runs.directory import RunDirectory
from distrun.runs.record import RunRecord
from distrun.schedulers import slurm_commands, slurm_states
from distrun.schedulers.slurm_commands import JobStatus

Tell = Callable[[str], None]
_FIRST_LOOK_S, _LAST_LOOK_S = 0.5, 15.0
"""How often Slurm is asked about a job that waits; the pause grows."""
_RUNNING_LOOK_S = 10.0
_RECORDED_WITHIN_S = 3.0
"""A shared file system shows the last record of a job this long after its end."""
_OVERTIME_S = 10.0
"""How long after the grace the launcher may take to end."""
_KILLED_WITHIN_S = 90.0
"""Slurm's KillWait is 30 s as it comes."""
_SAME_ESTIMATE_S = 600.0


def may_go_on(found: RunRecord) -> bool:
    """Return whether Slurm may (still, or again) run the job of a run.

    A job that was warned or preempted ends with 143, and comes back if it asked for that.
    """
    comes_back = found.job.get("requeue") is True and found.exit_code == ExitCode.TERMINATED
    return bool(found.job_id) and (found.ended_at is None or comes_back)


def settled(run: RunDirectory, found: RunRecord, status: JobStatus | None) -> RunRecord:
    """Return the record of a run; write how its job has ended if nobody else could.

    Args:
        run: The run.
        found: Its record, or an older one.
        status: Of its job; None: Slurm does not know it (any more).

    Raises:
        MachineError: The record cannot be read or written.
    """
    try:
        found = record.read(run)
        if found.ended_at is None and (ended := _ending(run, found, status)) is not None:
            found = ended
            record.write(run, found)
    except (OSError, ValueError) as error:
        raise MachineError(f"{run.record} cannot be used: {error}") from None
    return found


def _ending(run: RunDirectory, found: RunRecord, status: JobStatus | None) -> RunRecord | None:
    if status is None:
        outcome, code = "job lost", int(ExitCode.NODE_LOST)
        said = "Slurm does not know the job any more, and no end is recorded"
    else:
        if (ending := slurm_states.ending_of(status.state, status.exit_code)) is None:
            return None
        outcome, code = ending
        if outcome == "succeeded":  # the script ended with 0, and its launch recorded nothing
            outcome, code = "supervisor lost", int(ExitCode.INTERNAL)
        said = f"{status.state}: {slurm_states.state_of(status.state).meaning}"
    hint = f"see {run.batch_log}" if run.batch_log.inode() is not None else ""
    summary = f"Slurm job {found.job_id}: {said}"
    return record.ended(found, outcome, code, found.attempts, summary=summary, hint=hint)


def ended_event(run: RunDirectory, verdict: dict[str, Any] | None) -> dict[str, Any]:
    """Return the last event of a run from its record."""
    found = record.read(run)
    ended_at = found.ended_at or time.time()
    kept = ("outcome", "summary", "hint", "where", "attempts")
    return {
        "event": "ended",
        "time": ended_at,
        **{name: getattr(found, name) for name in kept},
        "exit_code": ExitCode.INTERNAL if found.exit_code is None else found.exit_code,
        "duration_s": round(max(0.0, ended_at - found.started_at), 1),
        "verdict": verdict,
    }


def sentence(job_id: str, status: JobStatus) -> str:
    """Return what is told of a job; a cure is on a second line."""
    if status.state != "PENDING":
        where = f" on {status.nodes}" if status.nodes and status.state == "RUNNING" else ""
        means = "" if where else f": {slurm_states.state_of(status.state).meaning}"
        return f"job {job_id}: {status.state}{where}{means}"
    reason = status.reason or "None"
    why = slurm_states.explain(reason, job_id)
    text = f"job {job_id}: PENDING ({reason}): {why.sentence}"
    if status.start_estimate is not None:
        text += f"; Slurm expects it to start at {_clock(status.start_estimate)}"
    return text + (f"\n{why.cure}" if why.cure else "")


def _clock(at: float) -> str:
    when, today = time.localtime(at), time.localtime()
    same_day = when[:3] == today[:3]
    return time.strftime("%H:%M" if same_day else "%Y-%m-%d %H:%M", when)


class Watch:
    """Asks Slurm about the job of one run, and tells what is new.

    Args:
        run: The run.
    """

    def __init__(self, run: RunDirectory) -> None:
        self._run = run
        self._look_at = 0.0
        self._pause_s = _FIRST_LOOK_S
        self._told: tuple[str, str, float | None] | None = None
        self._over_since: float | None = None
        self._ended_at: float | None = None
        self._problem_told = False
        self._news: list[dict[str, Any]] = []

    def over(self) -> bool:
        """Return whether the run has ended and will not go on."""
        found = record.read(self._run)
        comes_back = found.exit_code != 0 and found.job.get("requeue") is True
        if found.ended_at is not None and not comes_back:
            return True
        if found.ended_at != self._ended_at:  # an attempt has ended: does the job come back?
            self._ended_at, self._look_at = found.ended_at, 0.0
        if time.monotonic() < self._look_at or not found.job_id:
            return False
        try:
            status = slurm_commands.status(found.job_id, patience_s=0)
        except DistrunError as error:
            self._look_at = time.monotonic() + _RUNNING_LOOK_S
            if not self._problem_told:
                self._tell("", f"job {found.job_id}: {error.message}; asking again")
            self._problem_told = True
            return False
        self._problem_told = False
        return self._is_over(found, status)

    def news(self) -> Iterator[dict[str, Any]]:
        """Yield what is new as events with a message."""
        news, self._news = self._news, []
        yield from news

    def close(self) -> None:
        """Nothing is held open."""

    def _is_over(self, found: RunRecord, status: JobStatus | None) -> bool:
        now = time.monotonic()
        if status is not None and not slurm_states.state_of(status.state).is_over:
            self._over_since = None
            self._note(found.job_id, status)
            return False
        if self._over_since is None:
            self._over_since = now
        self._look_at = now + _FIRST_LOOK_S
        if found.ended_at is None and now - self._over_since < _RECORDED_WITHIN_S:
            return False
        settled(self._run, found, status)
        return True

    def _note(self, job_id: str, status: JobStatus) -> None:
        """Note when to ask again; tell what is new."""
        before, now = self._told, time.monotonic()
        estimate = status.start_estimate if status.state == "PENDING" else None
        changed = before is None or before[:2] != (status.state, status.reason)
        if changed or _moved(before[2] if before else None, estimate):
            self._told = (status.state, status.reason, estimate)
            self._pause_s = _FIRST_LOOK_S
            self._tell(status.state, sentence(job_id, status))
        self._pause_s = min(1.5 * self._pause_s, _LAST_LOOK_S)
        runs = status.state == "RUNNING" and record.read(self._run).ended_at is None
        self._look_at = now + (_RUNNING_LOOK_S if runs else self._pause_s)

    def _tell(self, state: str, message: str) -> None:
        at = round(time.time(), 3)
        self._news.append({"event": "job", "time": at, "state": state, "message": message})


def _moved(before: float | None, now: float | None) -> bool:
    if now is None:
        return False
    return before is None or abs(now - before) >= _SAME_ESTIMATE_S


class Jobs:
    """The states of several runs, for a list of them: Slurm's queue is asked once.

    Args:
        tell: Called with a line if it cannot be asked.
    """

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._queue: dict[str, JobStatus] | None = None
        self._silent = False

    def state_of(self, run: RunDirectory, found: RunRecord) -> tuple[RunRecord, str]:
        """Return a run's record, brought up to date, and its state in words."""
        if not may_go_on(found) or self._silent:
            return found, found.state
        try:
            if self._queue is None:
                self._queue = slurm_commands.queue()
            status = self._queue.get(found.job_id)
            if status is None or slurm_states.state_of(status.state).is_over:
                status = slurm_commands.status(found.job_id, patience_s=0)  # has the exit code
            if status is None:  # perhaps the job is one of another cluster: nothing is written
                return found, found.state if found.ended_at is not None else "unknown to Slurm"
            if not slurm_states.state_of(status.state).is_over:
                return replace(found, ended_at=None, outcome="", exit_code=None), _words(status)
            found = settled(run, found, status)
        except DistrunError as error:
            self._silent = True
            self._tell(error.message)
        return found, found.state


def _words(status: JobStatus) -> str:
    if status.state == "PENDING":
        return f"pending ({status.reason or 'None'})"
    if status.state == "RUNNING":
        return f"running on {status.nodes}"
    return status.state.lower()


class Stopper(stopper.Stopper):
    """Ends the job of a run: first its launcher alone, after the grace all that is left of it."""

    def __init__(self, _run: RunDirectory, found: RunRecord) -> None:
        super().__init__()
        self._found = found

    def _ask(self) -> float | None:
        runs = slurm_commands.end_launcher(self._found.job_id)
        return self._found.grace_s + _OVERTIME_S if runs else None

    def _force(self) -> None:
        slurm_commands.cancel(self._found.job_id)


def stop(
    run: RunDirectory, found: RunRecord, *, force: bool = False, wait_s: float | None = None
) -> RunRecord:
    """Stop the job of a run and wait for its end; see `api.runs.stop`.

    Raises:
        UsageError: It has ended.
        MachineError: Slurm does not answer.
    """
    if not may_go_on(found):
        raise UsageError(f"run {run.run_id} is not running: it is {found.outcome or found.state}")
    status = slurm_commands.status(found.job_id)
    if status is None or slurm_states.state_of(status.state).is_over:
        now = settled(run, found, status)
        raise UsageError(f"run {run.run_id} is not running: it is {now.outcome}")
    ending, watch = Stopper(run, found), Watch(run)
    limit_s = found.grace_s + _KILLED_WITHIN_S if wait_s is None else wait_s
    stopper.stop_and_wait(ending, watch.over, force=force, limit_s=limit_s)
    return record.read(run)

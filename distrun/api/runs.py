"""Finds, follows, stops and removes recorded runs."""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

from distrun.api import compose_jobs, kubernetes_jobs, kubernetes_watch, slurm_jobs
from distrun.api.slurm_jobs import ended_event
from distrun.api.stopper import Stopper
from distrun.errors import UsageError
from distrun.report.loss_points import loss_points
from distrun.runs import known
from distrun.runs.directory import RunDirectory
from distrun.runs.files import RunFile
from distrun.runs.history import attempt_rows, goodput
from distrun.runs.listing import find, list_runs
from distrun.runs.record import RunRecord, verdict
from distrun.runs.streams import Marks, Part
from distrun.schedulers import local
from distrun.wire import Lines

_POLL_S = 0.1
_AGAIN_S = 0.6  # sooner than 0.5 s later the second signal would repeat the first
_STILL_THERE_S = 5.0
Watch: TypeAlias = slurm_jobs.Watch | kubernetes_watch.Watch | compose_jobs.Watch

__all__ = [
    "Jobs",
    "Marks",
    "Part",
    "RunDirectory",
    "RunFile",
    "RunRecord",
    "Stopper",
    "attempt_rows",
    "bring_up_to_date",
    "events",
    "find",
    "goodput",
    "list_runs",
    "loss_points",
    "prune",
    "runs_dirs",
    "stop",
    "stopper",
    "verdict",
]


def runs_dirs(here: Path) -> list[Path]:
    """Return every runs directory that a launch of this user has recorded runs in.

    Args:
        here: One that belongs to them, whoever wrote it.
    """
    return [here, *(path for path in known.runs_dirs() if path != here.resolve())]


def events(run: RunDirectory, *, follow: bool) -> Iterator[dict[str, Any]]:
    """Yield a run's events from the first; `{}` if there is nothing new.

    Args:
        run: The run.
        follow: Wait for more until the run has ended or is lost.

    Raises:
        UsageError: They cannot be read.
    """
    found = _read(run)
    is_job = follow and bool(found.job)
    watch = _watch(run) if is_job and not kubernetes_jobs.is_over(found) else None
    try:
        yield from _events(run, watch, follow=follow, is_job=is_job)
    finally:
        if watch:
            watch.close()


def _watch(run: RunDirectory) -> Watch:
    """Return what follows the job of a run."""
    if kubernetes_jobs.is_ours(found := _read(run)):
        return kubernetes_watch.Watch(run)
    if compose_jobs.is_ours(found):
        return compose_jobs.Watch(run)
    return slurm_jobs.Watch(run)


def _events(
    run: RunDirectory, watch: Watch | None, *, follow: bool, is_job: bool
) -> Iterator[dict[str, Any]]:
    lines, offset = Lines(tolerant=True), 0  # a full disk truncates a line
    last: dict[str, Any] = {}
    while True:
        # checked before the read, so that no event is missed
        over = watch.over() if watch else _read(run).is_over
        data = _from(run.events, offset)
        offset += len(data)
        for event in lines.feed(data):
            if not isinstance(event.get("event"), str):
                continue
            last = event
            if not is_job or event["event"] != "ended":  # the job may begin another attempt
                yield event
        if watch:
            yield from watch.news()
        if not data:
            if over or not follow:
                break
            yield {}
            time.sleep(_POLL_S)
    if is_job:
        ended = ended_event(run, verdict(run))
        is_told = last.get("event") == "ended" and last.get("outcome") == ended["outcome"]
        yield last if is_told else ended
    elif follow and last.get("event") != "ended" and _read(run).ended_at is not None:
        yield ended_event(run, verdict(run))  # a full disk has no event of it


class Jobs:
    """The states of several runs, for a list of them.

    Args:
        tell: Called with a line about each scheduler that cannot be asked.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._slurm, self._kubernetes = slurm_jobs.Jobs(tell), kubernetes_jobs.Jobs(tell)

    def state_of(self, run: RunDirectory, found: RunRecord) -> tuple[RunRecord, str]:
        """Return a run's record, brought up to date, and its state in words."""
        if kubernetes_jobs.is_ours(found):
            return self._kubernetes.state_of(run, found)
        if compose_jobs.is_ours(found):
            return compose_jobs.state_of(run, found, self._tell)
        return self._slurm.state_of(run, found)


def stopper(run: RunDirectory, found: RunRecord) -> Stopper:
    """Return what ends the job of a run that was submitted."""
    if kubernetes_jobs.is_ours(found):
        return kubernetes_jobs.Stopper(run, found)
    if compose_jobs.is_ours(found):
        return compose_jobs.Stopper(run, found)
    return slurm_jobs.Stopper(run, found)


def bring_up_to_date(run: RunDirectory, found: RunRecord, tell: Callable[[str], None]) -> RunRecord:
    """Read what a run that is recorded elsewhere has printed meanwhile; return its record.

    Args:
        run: The run.
        found: Its record.
        tell: Called with a line if that cannot be done.
    """
    if kubernetes_jobs.is_ours(found):
        return kubernetes_jobs.Jobs(tell).state_of(run, found)[0]
    if compose_jobs.is_ours(found):
        return compose_jobs.state_of(run, found, tell)[0]
    return found


def _from(file: RunFile, offset: int) -> bytes:
    try:
        with open(file.open(os.O_RDONLY), "rb") as opened:
            opened.seek(offset)
            return opened.read()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from None


def _read(run: RunDirectory) -> RunRecord:
    return find(run.path.parent, str(run.path))[1]


def stop(run: RunDirectory, *, force: bool = False, wait_s: float | None = None) -> RunRecord:
    """Stop a running run and wait for its end.

    Args:
        run: The run.
        force: Kill the ranks without a grace period.
        wait_s: How long to wait; by default the run's grace period and some seconds.

    Returns:
        The record after the stop.

    Raises:
        UsageError: It is not running here.
    """
    before = _read(run)
    if kubernetes_jobs.is_ours(before):
        return kubernetes_jobs.stop(run, before, force=force, wait_s=wait_s)
    if compose_jobs.is_ours(before):
        return compose_jobs.stop(run, before, force=force, wait_s=wait_s)
    if before.job_id and before.state != "running":
        return slurm_jobs.stop(run, before, force=force, wait_s=wait_s)
    if not local.cancel(before):
        if before.is_over:
            state = "has ended" if before.state == "ended" else f"is {before.state}"
            raise UsageError(f"run {run.run_id} is not running: it {state}")
        raise UsageError(
            f"run {run.run_id} is {before.state}: it cannot be stopped from here",
            "stop it where it was started: on the same machine, in the same container, as the"
            " same user",
        )
    limit_s = wait_s if wait_s is not None else before.grace_s + 10.0
    deadline = time.monotonic() + limit_s
    kill_at = time.monotonic() + _AGAIN_S if force else math.inf
    while time.monotonic() < deadline:
        now = _read(run)
        if now.is_over:
            return now
        if time.monotonic() >= kill_at:
            kill_at += _STILL_THERE_S  # a busy supervisor may take two signals for one
            local.cancel(before)
        time.sleep(_POLL_S)
    return _read(run)


def prune(runs_dir: Path, keep: int, tell: Callable[[str], None] = lambda _: None) -> list[str]:
    """Remove the records of ended runs, except the newest `keep`; return their names.

    Args:
        runs_dir: Where runs are recorded.
        keep: Number of runs to keep.
        tell: Called with a line about each run that cannot be read or removed.
    """
    removed = []
    for run in [run for run, found in list_runs(runs_dir, tell) if _is_past(found)][keep:]:
        try:
            shutil.rmtree(run.path)  # it follows no links, not even that of the directory itself
            removed.append(run.run_id)
        except OSError as error:
            tell(f"{run.path} cannot be removed: {error.strerror or error}")
    return removed


def _is_past(found: RunRecord) -> bool:
    """Return whether a run is over; one whose job may come back is lost only between attempts."""
    return found.is_over and not (found.job_id and found.ended_at is None)

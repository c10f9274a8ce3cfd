"""Runs that are recorded: find them, follow them, stop them, remove old ones."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distrun.errors import UsageError
from distrun.runs import record
from distrun.runs.directory import RunDirectory
from distrun.runs.listing import find, list_runs
from distrun.runs.record import RunRecord
from distrun.schedulers import local

_POLL_S = 0.1
_AGAIN_S = 0.6  # the same signal sooner than half a second later is taken for the same word

__all__ = ["RunDirectory", "RunRecord", "events", "find", "list_runs", "prune", "stop"]


def events(run: RunDirectory, *, follow: bool) -> Iterator[dict[str, Any]]:
    """Yield a run's events from its first; `{}` whenever there is nothing new.

    Args:
        run: Which run.
        follow: Wait for more until the run has ended or is lost.
    """
    buffer, offset = b"", 0
    while True:
        over = record.read(run).state != "running"  # before the read: nothing can be missed
        try:
            with open(run.events, "rb") as file:
                file.seek(offset)
                data = file.read()
        except FileNotFoundError:
            data = b""
        offset += len(data)
        *lines, buffer = (buffer + data).split(b"\n")
        for line in lines:
            try:
                yield json.loads(line)
            except ValueError:
                pass  # torn by a full disk
        if not data:
            if over or not follow:
                return
            yield {}
            time.sleep(_POLL_S)


def stop(run: RunDirectory, *, force: bool = False, wait_s: float | None = None) -> RunRecord:
    """Stop a running run and wait for its end.

    Args:
        run: Which run.
        force: Kill the ranks without a grace.
        wait_s: How long to wait; by default the run's own grace and some seconds.

    Returns:
        Its record afterwards.

    Raises:
        UsageError: It is not running.
    """
    before = record.read(run)
    if not local.cancel(before):
        raise UsageError(f"run {run.run_id} is not running: it is {before.state}")
    if force:
        time.sleep(_AGAIN_S)
        local.cancel(before)
    limit_s = wait_s if wait_s is not None else before.plan.get("grace_s", 30.0) + 10.0
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        now = record.read(run)
        if now.state != "running":
            return now
        time.sleep(_POLL_S)
    return record.read(run)


def prune(runs_dir: Path, keep: int) -> list[str]:
    """Remove the records of ended runs, except the newest `keep`; return their names."""
    over = [run for run, found in list_runs(runs_dir) if found.state != "running"][keep:]
    for run in over:
        shutil.rmtree(run.path)
    return [run.run_id for run in over]

"""Asks a running run where its ranks are."""

from __future__ import annotations

import time
from dataclasses import dataclass

from distrun.api import runs
from distrun.api.running import require_running
from distrun.diagnose.call_paths import CallPath, path_of, shared
from distrun.diagnose.hang.timeline import last_call
from distrun.errors import MachineError, UsageError
from distrun.report.run_witnesses import read_record
from distrun.runs.directory import RunDirectory
from distrun.signals import STACKS

_LIMIT_S = 15.0
"""A node that does not answer is given up by the supervisor before that."""
_STACKS_NBYTES = 1 << 20
_STATES = {
    "D": "the kernel holds it (state D): a disk or a network file system that does not answer?",
    "R": "it runs and has no process group: from Python 3.13 on that is not safe to read",
    "T": "it is stopped (SIGSTOP, Ctrl-Z): SIGCONT lets it go on",
    "t": "a debugger holds it",
    "Z": "it has ended",
    "": "its node did not answer in time",
}
"""Why a rank writes nothing, by the state of its process (proc(5))."""
_NO_HANDLER = "it has no handler of distrun: is it Python, started by this launcher?"

__all__ = ["CallPath", "Silent", "Whereabouts", "stacks"]


@dataclass(frozen=True)
class Silent:
    """A rank that wrote no stacks."""

    rank: int
    host: str
    why: str


@dataclass(frozen=True)
class Whereabouts:
    """Where the ranks of a run are."""

    run_id: str
    groups: list[tuple[list[int], CallPath]]
    """Ranks that are in the same calls, the fewest ranks first."""
    silent: list[Silent]
    hosts: dict[int, str]
    """The host of each rank that runs."""
    collectives: dict[int, str]
    """In which collective a rank is, or after which; of those that keep a record."""


def stacks(run: RunDirectory, *, limit_s: float = _LIMIT_S) -> Whereabouts:
    """Ask all live ranks of a run which calls and collectives they are in; the run goes on.

    Each rank writes its stacks from C, in a signal handler: stuck or not
    (https://docs.python.org/3/library/faulthandler.html).

    Args:
        run: The run.
        limit_s: How long to wait for the answer.

    Raises:
        UsageError: It is not running here.
        MachineError: Its supervisor does not answer.
    """
    record = require_running(run, STACKS, "stacks")
    news = runs.events(run, follow=True)
    for event in news:  # what has happened before
        if not event:
            break
    record.supervisor.signal(STACKS)
    deadline = time.monotonic() + limit_s
    for event in news:
        if event.get("event") == "stacks":
            return _read(run, event["ranks"])
        if time.monotonic() > deadline:
            raise MachineError(
                f"the supervisor of {run.run_id} did not answer within {limit_s:g} s",
                f"is process {record.supervisor_pid} stopped?",
            )
    raise UsageError(f"run {run.run_id} has ended meanwhile")


def _read(run: RunDirectory, ranks: list[dict[str, object]]) -> Whereabouts:
    paths, silent, hosts, collectives = {}, [], {}, {}
    for told in ranks:
        rank, host = int(str(told["rank"])), str(told["host"])
        hosts[rank] = host
        if told["recorded"] and (record := read_record(run, rank)):
            collectives[rank] = last_call(record)
        why = _STATES.get(str(told["state"]), _NO_HANDLER)
        if told["written"]:
            try:
                found = run.stacks(rank).read(_STACKS_NBYTES)
                paths[rank] = path_of(found.decode(errors="replace"))
                continue
            except OSError as error:  # the disk may be full
                why = f"{run.stacks(rank)} cannot be read: {error.strerror}"
        silent.append(Silent(rank, host, why))
    return Whereabouts(run.run_id, shared(paths), silent, hosts, collectives)

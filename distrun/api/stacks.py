"""Asks a running run where its ranks are."""

from __future__ import annotations

import shlex
import time
from dataclasses import dataclass

from distrun.api import runs
from distrun.diagnose.call_paths import CallPath, path_of, shared
from distrun.diagnose.hang.timeline import last_call
from distrun.errors import MachineError, UsageError
from distrun.report.run_witnesses import read_record
from distrun.runs.directory import RunDirectory
from distrun.runs.record import RunRecord
from distrun.signals import STACKS

_LIMIT_S = 15.0
"""A node that does not answer is given up by the supervisor before that."""
_STACKS_NBYTES = 1 << 20
_STATES = {
    "D": "the kernel holds it (state D): a disk or a network file system that does not answer?",
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
    record = _require_running(run)
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


def _require_running(run: RunDirectory) -> RunRecord:
    """Return its record; refuse a run that is over, elsewhere, or of a distrun without this."""
    record = runs.find(run.path.parent, str(run.path))[1]
    if record.is_over:
        hint = f"where its ranks were at the end: distrun show {run.run_id}"
        raise UsageError(f"run {run.run_id} is not running: it is {record.state}", hint)
    if record.state != "running":
        hint = "ask where it was started: same machine, same container, same user"
        if record.job_id:
            where = f"srun --overlap --jobid {record.job_id} -N1 -n1 -r0"
            path = shlex.quote(str(run.path))
            hint = f"ask on the job's first node: {where} distrun stacks {path}"
        why = "its ranks cannot be asked from here"
        raise UsageError(f"run {run.run_id} is {record.state}: {why}", hint)
    if not STACKS or not record.supervisor.handles(STACKS):
        raise UsageError(f"run {run.run_id} was started by a distrun that has no `stacks`")
    return record


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

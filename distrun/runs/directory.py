"""The paths of a run directory."""

from __future__ import annotations

import errno
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from distrun.runs.files import OpenDirectory, RunFile, open_directory

METRICS_FIELDS = frozenset(
    ("kind", "node", "rank", "attempt", "step", "time", "total_steps", "every", "system")
)
"""Fields of a record of metrics.jsonl, and columns that an export adds: no names of values."""


@dataclass(frozen=True)
class RunDirectory:
    """`runs/<date>-<time>-<recipe>-<4 hex>/`; contains everything that later commands need."""

    path: Path
    held: OpenDirectory | None = field(default=None, repr=False, compare=False)
    """Its descriptor if this process made it; else it is opened at each use."""

    @property
    def run_id(self) -> str:
        """The id of the run: the name of its directory."""
        return self.path.name

    @property
    def record(self) -> RunFile:
        """The record: what was run, where, and how it ended."""
        return self._file("run.json")

    @property
    def events(self) -> RunFile:
        """All events, one per line."""
        return self._file("events.jsonl")

    @property
    def metrics(self) -> RunFile:
        """What ranks have logged, a line per step, and what was sampled on the nodes."""
        return self._file("metrics.jsonl")

    @property
    def verdict(self) -> RunFile:
        """The verdict: what failed first."""
        return self._file("verdict.json")

    @property
    def nodes(self) -> RunFile:
        """The nodes that were lost or suspected: which, why and when."""
        return self._file("nodes.json")

    @property
    def report(self) -> RunFile:
        """The report for people, written at the end."""
        return self._file("report.html")

    @property
    def supervisor_log(self) -> RunFile:
        """Errors of the supervisor itself; usually missing."""
        return self._file("supervisor.log")

    @property
    def job_script(self) -> RunFile:
        """The script that was submitted to Slurm."""
        return self._file("job.sh")

    @property
    def compose_file(self) -> RunFile:
        """The Compose file of a run in containers of this machine."""
        return self._file("compose.yaml")

    @property
    def batch_log(self) -> RunFile:
        """What the script has printed, or a container beside the events of its launch."""
        return self._file("batch.log")

    @property
    def mirror_state(self) -> RunFile:
        """Up to where the log of a container was read, if the run is recorded from that."""
        return self._file("mirror.json")

    @property
    def mirror_lock(self) -> RunFile:
        """Locked by the process that reads it."""
        return self._file("mirror.lock")

    def log(self, node: int, rank: int) -> RunFile:
        """The output of one rank."""
        return self._file("logs", f"node{node:d}", f"rank{rank:d}.log")

    def streams(self, node: int, rank: int) -> RunFile:
        """The marks that tell stdout from stderr in a rank's log."""
        return self._file("logs", f"node{node:d}", f"rank{rank:d}.streams")

    def agent_log(self, node: int) -> RunFile:
        """The output of torch's agent on one node."""
        return self._file("logs", f"node{node:d}", "agent.log")

    def error(self, rank: int) -> RunFile:
        """The exception that ended one rank."""
        return self._file("errors", f"rank{rank:d}.json")

    def stacks(self, rank: int) -> RunFile:
        """The stacks of one rank when it crashed or was stopped by the time limit."""
        return self._file("stacks", f"rank{rank:d}.txt")

    def flight(self, rank: int) -> RunFile:
        """The record of one rank's collectives, from when it hung or was stopped."""
        return self._file("flight", f"rank{rank:d}.json")

    def rank_logs(self) -> Iterator[tuple[int, int]]:
        """Yield (node, rank) of every existing rank log, in rank order."""
        found = []
        for path in self.path.glob("logs/node*/rank*.log"):
            node, rank = path.parent.name[4:], path.stem[4:]
            if node.isdecimal() and rank.isdecimal():
                found.append((int(rank), int(node)))
        for rank_number, node_number in sorted(found):
            yield node_number, rank_number

    def _file(self, *parts: str) -> RunFile:
        return RunFile(self.path, parts, self.held)


def new_stamp() -> tuple[str, str]:
    """Return the `<date>-<time>` and the `<4 hex>` of a run that starts now."""
    return time.strftime("%Y%m%d-%H%M%S"), secrets.token_hex(2)


def create(runs_dir: Path, run_id: str) -> RunDirectory:
    """Make the directory of a new run, readable by this user only.

    Raises:
        OSError: It cannot be made.
    """
    for place in reversed((runs_dir, *runs_dir.parents)):
        if not place.is_dir():
            place.mkdir(mode=0o755, exist_ok=True)  # with any umask: not writable by others
    path = runs_dir / run_id
    path.mkdir(mode=0o700)
    held = open_directory(path)
    for name in ("logs", "errors", "stacks", "flight"):
        os.mkdir(name, 0o700, dir_fd=held.fd)
    return RunDirectory(path.resolve(), held)


def reopened(path: Path) -> RunDirectory:
    """Open the directory of a run that another process has made, to go on with it.

    Raises:
        OSError: It does not exist, is a link, or belongs to another user.
    """
    held = open_directory(path)
    if (uid := os.fstat(held.fd).st_uid) != os.geteuid():
        raise PermissionError(errno.EPERM, f"it belongs to another user (uid {uid})")
    return RunDirectory(path.resolve(), held)

"""Runs in containers of this machine: followed, stopped, listed, and removed after their end."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

from distrun import env
from distrun.api import stopper
from distrun.api.mirror import Mirror, open_mirror
from distrun.errors import DistrunError, ExitCode, MachineError, UsageError
from distrun.runs import record
from distrun.runs.directory import RunDirectory
from distrun.runs.record import RunRecord
from distrun.schedulers.container_engine import Container, Engine, engine

Tell = Callable[[str], None]
NAME = "compose"
_POLL_S = 0.1
_LOCK_S = 1.0
_AGAIN_S = 0.5
"""When a log that was cut is read on."""
_OVERTIME_S = 10.0
"""How long after the ranks' grace the containers are killed."""
_LOOK_S = 30.0
_CHUNK_NBYTES = 1 << 16
_KILLED = 137


def is_ours(found: RunRecord) -> bool:
    """Return whether a run is one of containers of this machine."""
    return found.job.get("on") == NAME


def _engine_of(found: RunRecord) -> Engine:
    return engine((str(found.job.get("engine")),))


def _containers(found: RunRecord) -> list[str]:
    """Return the names of a run's containers, the head's first."""
    nodes = found.job.get("nodes")
    return [f"{found.job.get('project')}-node{rank}" for rank in range(nodes or 1)]


class _Log:
    """The log of a container, read as it comes."""

    def __init__(self, argv: list[str]) -> None:
        self._child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C on the terminal is for the run
        )
        assert self._child.stdout is not None
        self._fd = self._child.stdout.fileno()
        os.set_blocking(self._fd, False)
        self._rest = b""
        self.ended = False

    def lines(self) -> list[bytes]:
        """Return the lines that have come; the last one may have no end."""
        data = [self._rest]
        while not self.ended:
            try:
                data.append(os.read(self._fd, _CHUNK_NBYTES))
            except BlockingIOError:
                break
            self.ended = not data[-1]
        *lines, self._rest = b"".join(data).split(b"\n")
        if self.ended and self._rest:
            lines, self._rest = [*lines, self._rest], b""
        return lines

    def close(self) -> None:
        """End the command that prints it."""
        self._child.kill()
        self._child.wait()
        if self._child.stdout is not None:
            self._child.stdout.close()


class Watch:
    """Follows the containers of one run, and removes them after its end.

    Args:
        run: The run.
        follow: Wait for what is to come; else read what is there.

    Raises:
        MachineError: The engine does not answer.
    """

    def __init__(self, run: RunDirectory, *, follow: bool = True) -> None:
        self._run = run
        self._follow = follow
        self._found = record.read(run)
        self._head = _containers(self._found)[0]
        self._engine = _engine_of(self._found)
        self._mirror: Mirror | None = None
        self._log: _Log | None = None
        self._at = 0.0
        self._is_over = False
        self._news: list[dict[str, Any]] = []

    def over(self) -> bool:
        """Do what is due; return whether the run has ended.

        Raises:
            MachineError: The engine does not answer, or the run directory cannot be used.
        """
        if self._is_over or (self._mirror is None and not self._may_write()):
            return self._is_over or record.read(self._run).ended_at is not None
        assert self._mirror is not None
        if self._log is None and time.monotonic() >= self._at:
            self._read_on(self._mirror)
        if self._log is not None:
            self._take(self._mirror, self._log)
        self._mirror.checkpoint()
        return self._is_over

    @property
    def has_caught_up(self) -> bool:
        """Whether all that is there now was read, or another process reads it."""
        return self._mirror is None or self._is_over or self._at > 0

    def news(self) -> Iterator[dict[str, Any]]:
        """Yield what is new: words that are no events."""
        news, self._news = self._news, []
        yield from news

    def close(self) -> None:
        """Let another process write the record."""
        if self._log is not None:
            self._log.close()
            self._log = None
        if self._mirror is not None:
            self._mirror.checkpoint()
            self._mirror.close()
            self._mirror = None

    def _may_write(self) -> bool:
        """Become the one that writes the record, if nobody else is."""
        if time.monotonic() < self._at:
            return False
        try:
            self._mirror = open_mirror(self._run)
        except (OSError, ValueError) as error:
            raise MachineError(f"{self._run.path} cannot be used: {error}") from None
        self._at = 0.0 if self._mirror is not None else time.monotonic() + _LOCK_S
        return self._mirror is not None

    def _read_on(self, mirror: Mirror) -> None:
        """Read the head's log from where it was left, or settle how the run has ended."""
        head = self._engine.container(self._head)
        if head is None or (self._at > 0 and not head.runs):
            self._settle(mirror, head)
            return
        mirror.read_from(f"{self._head}/{head.started_at}")
        argv = self._engine.follow_argv(self._head, mirror.since)
        if not self._follow:
            argv.remove("--follow")
        self._log = _Log(argv)

    def _take(self, mirror: Mirror, log: _Log) -> None:
        at = round(time.time(), 3)
        for line in mirror.take(log.lines()):
            self._news.append({"event": "said", "time": at, "node": 0, "line": line})
        if log.ended:
            log.close()
            self._log = None
            self._at = time.monotonic() + (_AGAIN_S if self._follow else 0.0)

    def _settle(self, mirror: Mirror, head: Container | None) -> None:
        if mirror.record.ended_at is None:
            outcome, code, said = _ending(self._head, head)
            if head is not None and not mirror.has_begun:
                outcome = "not started"
            words = f"; the last line it wrote: {mirror.last_words}" if mirror.last_words else ""
            hint = f"see {self._run.batch_log}" if mirror.last_words else ""
            mirror.end(outcome, code, summary=said + words, hint=hint)
        self._is_over = True
        _remove(self._engine, self._found)


def _ending(name: str, head: Container | None) -> tuple[str, int, str]:
    """Return outcome, exit code and a sentence for a head that has not told its end."""
    if head is None:
        said = f"the container {name} was removed, and no end is recorded"
        return "job lost", int(ExitCode.NODE_LOST), said
    said = f"the container {name} ended with exit code {head.exit_code}"
    if head.out_of_memory:
        return "out of memory", head.exit_code or _KILLED, f"{said}: it was out of memory"
    if head.exit_code == 0:
        return "supervisor lost", int(ExitCode.INTERNAL), f"{said}, and told no end"
    outcome = "killed" if head.exit_code == _KILLED else "failed"
    return outcome, head.exit_code, said


def _remove(found_engine: Engine, found: RunRecord) -> None:
    job = found.job
    found_engine.down(str(job.get("file")), str(job.get("project")), {env.DIAL_KEY: "-"})


class Stopper(stopper.Stopper):
    """Ends the containers of a run: the head's launcher first, after the grace all of them."""

    def __init__(self, _run: RunDirectory, found: RunRecord) -> None:
        super().__init__()
        self._found = found
        self._engine = _engine_of(found)

    def _ask(self) -> float:
        self._engine.kill("TERM", _containers(self._found)[:1])
        return self._found.grace_s + _OVERTIME_S

    def _force(self) -> None:
        self._engine.kill("KILL", _containers(self._found))


def stop(
    run: RunDirectory, found: RunRecord, *, force: bool = False, wait_s: float | None = None
) -> RunRecord:
    """Stop the containers of a run and wait for its end; see `api.runs.stop`.

    Raises:
        UsageError: It has ended.
        MachineError: The engine does not answer.
    """
    if found.ended_at is not None:
        raise UsageError(f"run {run.run_id} is not running: it is {found.outcome}")
    ending, watch = Stopper(run, found), Watch(run)
    limit_s = found.grace_s + 3 * _OVERTIME_S if wait_s is None else wait_s
    try:
        stopper.stop_and_wait(ending, watch.over, force=force, limit_s=limit_s)
    finally:
        watch.close()
    return record.read(run)


def state_of(run: RunDirectory, found: RunRecord, tell: Tell) -> tuple[RunRecord, str]:
    """Return a run's record, brought up to date, and its state in words."""
    if found.ended_at is not None:
        return found, found.state
    try:
        _bring_up_to_date(run)
        found = record.read(run)
    except DistrunError as error:
        tell(f"{run.run_id}: {error.message}")
        return found, "unknown to this machine"
    return found, found.state if found.ended_at is not None else "running"


def _bring_up_to_date(run: RunDirectory) -> None:
    watch, deadline = Watch(run, follow=False), time.monotonic() + _LOOK_S
    try:
        while not watch.over() and not watch.has_caught_up:
            if time.monotonic() > deadline:
                raise MachineError("the log of the head's container has no end")
            time.sleep(_POLL_S)
        watch.over()  # if the head has ended, that is recorded
    finally:
        watch.close()

"""The other end of a supervisor: start it, hear from it, tell it to stop."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from distrun.errors import MachineError
from distrun.plan.model import LaunchPlan
from distrun.processes import marked, start_time, sweep
from distrun.runs import place
from distrun.runs.directory import RunDirectory
from distrun.runs.record import RunRecord, write
from distrun.silence import BEAT_S, Silence
from distrun.streams import NOTHING_HANDED, Streams

_PROGRAM = str(Path(__file__).with_name("__main__.py"))


class SupervisorClient:
    """A supervisor that was started here."""

    def __init__(
        self, child: subprocess.Popen[bytes], run: RunDirectory, commands_fd: int, events_fd: int
    ) -> None:
        self._child = child
        self._commands_fd: int | None = commands_fd
        self._events_fd = events_fd
        self._buffer = b""
        self.run = run
        self.silent = False
        """It was killed because it said nothing for long."""

    @property
    def pid(self) -> int:
        """Its process."""
        return self._child.pid

    def events(self, tick_s: float = BEAT_S) -> Iterator[dict[str, Any]]:
        """Yield its events until it is gone; `{}` says that a log has grown, or a tick passed.

        One that says nothing for long is killed: it is stopped, or stuck.
        """
        silence = Silence()
        while True:
            if not select.select([self._events_fd], [], [], tick_s)[0]:
                if silence.lost:
                    self.silent = True
                    self.kill()
                yield {"event": "silent"} if silence.to_be_told else {}
                continue
            if not (data := os.read(self._events_fd, 1 << 16)):
                break
            silence.heard()
            *lines, self._buffer = (self._buffer + data.replace(b"\0", b"")).split(b"\n")
            for line in lines:
                yield json.loads(line) if line else {}
        self._child.wait()
        os.close(self._events_fd)
        if self._commands_fd is not None:
            os.close(self._commands_fd)
            self._commands_fd = None

    def signal(self, signum: int) -> None:
        """Have it treat a signal as if it had got it itself."""
        if self._commands_fd is None:
            return
        try:
            os.write(self._commands_fd, json.dumps({"signal": int(signum)}).encode() + b"\n")
        except OSError:
            pass  # it has just ended: its last event says how

    def kill(self) -> None:
        """End a supervisor that no longer listens; `clean_up` does the rest."""
        self._child.kill()

    def clean_up(self) -> None:
        """After it was killed: wait for its agents to see it, then leave no process behind."""
        deadline = time.monotonic() + 3.0
        while time.monotonic() < deadline and marked(self.run.run_id):
            time.sleep(0.05)
        sweep(self.run.run_id)


def start_supervisor(
    plan: LaunchPlan,
    run: RunDirectory,
    record: RunRecord,
    *,
    detached: bool,
    streams: Streams = NOTHING_HANDED,
) -> SupervisorClient:
    """Start a supervisor for a run whose directory was just made.

    The record names the supervisor from the start: the run is never taken for a lost one.

    Raises:
        MachineError: The process cannot be started.
        OSError: The record cannot be written.
    """
    assert run.held is not None
    commands_read, commands_write = os.pipe()
    events_read, events_write = os.pipe()
    # Descriptors of their own: what a sitecustomize prints must not be taken for an event.
    passed = [run.held.fd, commands_read, events_write]
    passed += streams.open_fds
    try:
        child = _start(run, passed)
    except OSError as error:  # this user may have no more processes
        for fd in (commands_read, commands_write, events_read, events_write):
            os.close(fd)
        raise MachineError(
            f"the supervisor cannot be started: {error.strerror}",
            "`ulimit -a` shows the limits of this user",
        ) from None
    os.close(commands_read)
    os.close(events_write)
    where = asdict(place.here())
    start = start_time(child.pid)
    record = replace(record, supervisor_pid=child.pid, supervisor_start=start, **where)
    try:
        write(run, record)
    except OSError:
        os.close(commands_write)  # without an order it ends
        child.wait()
        os.close(events_read)
        raise
    order = {
        "plan": plan.to_json(),
        "run": str(run.path),
        "record": asdict(record),
        "environ": dict(os.environ),
        "detached": detached,
        "streams": streams.to_json(),
    }
    with open(os.dup(commands_write), "wb") as commands:
        commands.write(json.dumps(order).encode() + b"\n")
    return SupervisorClient(child, run, commands_write, events_read)


def _start(run: RunDirectory, passed: list[int]) -> subprocess.Popen[bytes]:
    with open(run.supervisor_log.open(os.O_WRONLY | os.O_CREAT), "wb") as log:
        return subprocess.Popen(
            # Without the user's PYTHONPATH and site: it needs the standard library alone.
            [sys.executable, "-I", "-S", _PROGRAM, run.run_id, *map(str, passed)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C reaches it through us, as a decision
            pass_fds=passed,
        )

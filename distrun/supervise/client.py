"""The launcher's side of a supervisor: start it, read its events, stop it."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from distrun.errors import MachineError
from distrun.nodes.handed import Handed, Kept
from distrun.plan.model import LaunchPlan
from distrun.processes import marked, start_time, sweep
from distrun.runs import place
from distrun.runs.directory import RunDirectory
from distrun.runs.record import RunRecord, write
from distrun.silence import BEAT_S, Silence
from distrun.streams import NOTHING_HANDED, Streams
from distrun.wire import Lines, encoded

_PROGRAM = str(Path(__file__).with_name("__main__.py"))


class SupervisorClient:
    """A supervisor that this process started."""

    def __init__(
        self,
        child: subprocess.Popen[bytes],
        run: RunDirectory,
        commands_fd: int,
        events_fd: int,
        agents: Kept,
    ) -> None:
        self._child = child
        self._agents = agents
        self._commands_fd: int | None = commands_fd
        self._events_fd = events_fd
        self._lines = Lines()
        self.run = run
        self.silent = False
        """It was killed because it said nothing for long."""

    @property
    def pid(self) -> int:
        """Its process."""
        return self._child.pid

    def events(self, tick_s: float = BEAT_S) -> Iterator[dict[str, Any]]:
        """Yield its events until it is gone; `{}` means that a log has grown, or a tick passed.

        A supervisor that is silent for long is killed: it is stopped, or stuck.
        """
        silence = Silence()
        poller = select.poll()  # select() takes no descriptor above 1023
        poller.register(self._events_fd, select.POLLIN)
        while True:
            if not poller.poll(1000 * tick_s):
                self._agents.reap()
                if silence.lost:
                    self.silent = True
                    self.kill()
                yield {"event": "silent"} if silence.to_be_told else {}
                continue
            if not (data := os.read(self._events_fd, 1 << 16)):
                break
            silence.heard()
            yield from self._lines.feed(data)
        self._child.wait()
        self._agents.end()
        os.close(self._events_fd)
        if self._commands_fd is not None:
            os.close(self._commands_fd)
            self._commands_fd = None

    def signal(self, signum: int, why: str = "") -> None:
        """Have it handle a signal as if it had received it.

        Args:
            signum: The signal.
            why: What the end of the run is ascribed to, instead of the signal.
        """
        if self._commands_fd is None:
            return
        order = {"signal": int(signum), "why": why} if why else {"signal": int(signum)}
        try:
            os.write(self._commands_fd, encoded(order))
        except OSError:
            pass  # it has just ended: its last event has the outcome

    def kill(self) -> None:
        """Kill a supervisor that no longer answers; `clean_up` does the rest."""
        self._child.kill()

    def clean_up(self) -> None:
        """After it was killed: wait until its agents have ended, then leave no process."""
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
    agents: Kept,
) -> SupervisorClient:
    """Start a supervisor for a run whose directory was just made.

    The record names the supervisor from the start, so the run never looks lost.

    Args:
        plan: The plan.
        run: Its directory.
        record: Its record.
        detached: The run goes on when this process ends.
        streams: stdin, stdout and stderr of the ranks.
        agents: Agents that have been started on other machines.

    Raises:
        MachineError: The process cannot be started.
        OSError: The record cannot be written.
    """
    assert run.held is not None
    commands_read, commands_write = os.pipe()
    events_read, events_write = os.pipe()
    # Pipes of its own: what a sitecustomize prints must not be read as an event.
    passed = [run.held.fd, commands_read, events_write]
    passed += streams.open_fds
    handed = agents.of({node.host for node in (*plan.supervised, *plan.spares)})
    passed += [fd for each in handed.values() for fd in each.fds]
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
    agents.leave()
    where = asdict(place.here())
    start = start_time(child.pid)
    record = replace(record, supervisor_pid=child.pid, supervisor_start=start, **where)
    try:
        write(run, record)
    except OSError:
        os.close(commands_write)  # without an order it ends
        child.wait()
        agents.end()
        os.close(events_read)
        raise
    with open(os.dup(commands_write), "wb") as commands:
        commands.write(encoded(_order(plan, run, record, detached, streams, handed)))
    return SupervisorClient(child, run, commands_write, events_read, agents)


def _order(
    plan: LaunchPlan,
    run: RunDirectory,
    record: RunRecord,
    detached: bool,
    streams: Streams,
    handed: Mapping[str, Handed],
) -> dict[str, Any]:
    """Return the first line of the commands; `__main__` reads it."""
    return {
        "plan": plan.to_json(),
        "run": str(run.path),
        "record": asdict(record),
        "environ": dict(os.environ),
        "detached": detached,
        "streams": streams.to_json(),
        "handed": {host: asdict(each) for host, each in handed.items()},
    }


def _start(run: RunDirectory, passed: list[int]) -> subprocess.Popen[bytes]:
    with open(run.supervisor_log.open(os.O_WRONLY | os.O_CREAT), "wb") as log:
        return subprocess.Popen(
            # Without the user's PYTHONPATH and site: it needs only the standard library.
            [sys.executable, "-I", "-S", _PROGRAM, run.run_id, *map(str, passed)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C reaches it through us, as a command
            pass_fds=passed,
        )

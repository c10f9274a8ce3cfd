"""The other end of a supervisor: start it, hear from it, tell it to stop."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from distrun.plan.model import LaunchPlan
from distrun.processes import marked, sweep
from distrun.runs.directory import RunDirectory
from distrun.runs.record import RunRecord

_PROGRAM = str(Path(__file__).with_name("__main__.py"))


class SupervisorClient:
    """A supervisor that was started here."""

    def __init__(self, child: subprocess.Popen[bytes], run: RunDirectory) -> None:
        self._child = child
        self.run = run

    @property
    def pid(self) -> int:
        """Its process."""
        return self._child.pid

    def events(self, tick_s: float | None = None) -> Iterator[dict[str, Any]]:
        """Yield its events until it is gone; `{}` says that a log has grown, or a tick passed."""
        assert self._child.stdout
        fd, buffer = self._child.stdout.fileno(), b""
        while True:
            if tick_s is not None and not select.select([fd], [], [], tick_s)[0]:
                yield {}
                continue
            if not (data := os.read(fd, 1 << 16)):
                break
            *lines, buffer = (buffer + data).split(b"\n")
            for line in lines:
                yield json.loads(line) if line else {}
        self._child.wait()
        self._child.stdout.close()
        if self._child.stdin:
            self._child.stdin.close()

    def signal(self, signum: int) -> None:
        """Have it treat a signal as if it had got it itself."""
        assert self._child.stdin
        if self._child.stdin.closed:
            return
        try:
            os.write(
                self._child.stdin.fileno(), json.dumps({"signal": int(signum)}).encode() + b"\n"
            )
        except OSError:
            pass  # it has just ended: its last event says how

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
    stdin_fd: int | None,
) -> SupervisorClient:
    """Start a supervisor for a run whose directory is there.

    Raises:
        OSError: The process cannot be started.
    """
    argv = [sys.executable, _PROGRAM]
    with open(run.supervisor_log, "wb") as log:
        child = subprocess.Popen(
            argv if stdin_fd is None else [*argv, str(stdin_fd)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,  # Ctrl-C reaches it through us, as a decision
            pass_fds=() if stdin_fd is None else (stdin_fd,),
        )
    order = {
        "plan": plan.to_json(),
        "run": str(run.path),
        "record": asdict(record),
        "environ": dict(os.environ),
        "detached": detached,
    }
    assert child.stdin
    child.stdin.write(json.dumps(order).encode() + b"\n")
    child.stdin.flush()
    return SupervisorClient(child, run)

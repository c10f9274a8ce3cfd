"""The supervisor's program: `python …/supervise/__main__.py [STDIN_FD]`, started by `client`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

if sys.path and sys.path[0] == str(Path(__file__).parent):
    del sys.path[0]

from distrun.plan.model import LaunchPlan
from distrun.processes import start_time
from distrun.runs.directory import RunDirectory
from distrun.runs.record import RunRecord
from distrun.supervise.observer import Observer
from distrun.supervise.supervisor import Order, Supervisor


def main() -> int:
    """Read the order from the commands pipe and carry it out."""
    commands, events = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(2, 1)
    data = b""
    while b"\n" not in data:
        if not (more := os.read(commands, 1 << 20)):
            return 0  # the client died before it had said what it wants
        data += more
    line, _, early_commands = data.partition(b"\n")
    order = json.loads(line)
    record = RunRecord(**order["record"])
    return Supervisor(
        Order(
            plan=LaunchPlan.from_json(order["plan"]),
            run=RunDirectory(Path(order["run"])),
            record=RunRecord(
                **{
                    **vars(record),
                    "supervisor_pid": os.getpid(),
                    "supervisor_start": start_time(os.getpid()),
                }
            ),
            environ=order["environ"],
            detached=order["detached"],
            stdin_fd=int(sys.argv[1]) if len(sys.argv) > 1 else None,
        ),
        Observer(commands, events, early_commands),
    ).run()


if __name__ == "__main__":
    sys.exit(main())

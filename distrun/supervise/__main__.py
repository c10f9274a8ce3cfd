"""The supervisor's program: `…/__main__.py RUN_ID RUN_FD COMMANDS_FD EVENTS_FD [FD]…`.

RUN_FD is the run directory, open. RUN_ID names the run in process lists and for `distrun stop`.
Each further FD is one of the launcher's, for a rank or of an agent; the order says which.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))  # started without site: see client

from distrun.errors import ExitCode
from distrun.nodes.handed import Handed
from distrun.plan.model import LaunchPlan
from distrun.runs.directory import RunDirectory
from distrun.runs.files import OpenDirectory
from distrun.runs.record import RunRecord, write
from distrun.streams import Streams
from distrun.supervise.observer import Observer
from distrun.supervise.supervisor import Order, Supervisor
from distrun.wire import first_message


def main() -> int:
    """Read the order from the commands pipe and carry it out."""
    directory, commands, events, *handed = (int(word) for word in sys.argv[2:])
    for fd in (directory, commands, events, *handed):
        os.set_inheritable(fd, False)
    if (received := first_message(commands)) is None:
        return 0  # the client died before it sent an order
    order, early_commands = received
    carried_out = Order(
        plan=LaunchPlan.from_json(order["plan"]),
        run=RunDirectory(Path(order["run"]), OpenDirectory(directory)),
        record=RunRecord(**order["record"]),
        environ=order["environ"],
        detached=order["detached"],
        streams=Streams.from_json(order["streams"]),
        handed={host: Handed(**each) for host, each in order["handed"].items()},
    )
    observer = Observer(commands, events, early_commands)
    try:
        supervisor = Supervisor(carried_out, observer)
    except RuntimeError as error:
        return _without_threads(carried_out, observer, error)
    return supervisor.run()


def _without_threads(order: Order, observer: Observer, error: RuntimeError) -> int:
    """End a run whose user may have no more threads."""
    told = {
        "outcome": "not started",
        "exit_code": int(ExitCode.MACHINE),
        "summary": f"the supervisor cannot start a thread: {error}",
        "hint": "`ulimit -u` shows how many processes and threads this user may have",
    }
    now = replace(order.record, ended_at=time.time(), **told)  # type: ignore[arg-type]  # each fits
    write(order.run, now)
    observer.tell({"event": "ended", **told, "duration_s": 0.0, "attempts": 1, "verdict": None})
    observer.flush_for(1.0)
    return int(ExitCode.MACHINE)


if __name__ == "__main__":
    sys.exit(main())

"""The local scheduler: every node is an agent on this machine, a child of the run's supervisor."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from distrun.nodes.handed import Kept
from distrun.plan.model import LaunchPlan
from distrun.runs.directory import RunDirectory
from distrun.runs.record import RunRecord
from distrun.schedulers.place import Place
from distrun.spec.job import Settings
from distrun.streams import NOTHING_HANDED, Streams
from distrun.supervise.client import SupervisorClient, start_supervisor


@contextmanager
def nodes(_: Settings) -> Iterator[list[Place]]:
    """Yield no place: every node is emulated on this machine."""
    yield []


def command(place: Place, module: str, arguments: Sequence[str]) -> list[str]:
    """Return the command that runs a module here."""
    return [sys.executable, "-m", module, *arguments]


def shell(place: Place) -> list[str]:
    """Return []: nothing is sent."""
    return []


def cure(name: str, problem: str) -> str:
    """Return "": this machine is always reached."""
    return ""


def submit(
    plan: LaunchPlan,
    run: RunDirectory,
    record: RunRecord,
    *,
    detached: bool = False,
    streams: Streams = NOTHING_HANDED,
    agents: Kept,
) -> SupervisorClient:
    """Start the run; its supervisor reports to the returned client."""
    return start_supervisor(plan, run, record, detached=detached, streams=streams, agents=agents)


def cancel(record: RunRecord) -> bool:
    """Stop a run as SIGTERM does; the second call kills its ranks.

    Returns:
        False if it is not running here.
    """
    return record.state == "running" and record.supervisor.signal(signal.SIGTERM)

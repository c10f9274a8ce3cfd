"""The schedulers by name; nothing else branches on the name."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, cast

from distrun.errors import UsageError, did_you_mean
from distrun.nodes.handed import most_kept
from distrun.nodes.machines import Machines, OtherMachines, ThisMachine
from distrun.probe.nvml import LAUNCH_DEADLINE_S
from distrun.processes import raise_descriptor_limit, set_descriptor_limit
from distrun.schedulers import slurm
from distrun.schedulers.place import Place
from distrun.spec.job import Settings

PROBE = "distrun.probe"
SERVING = ("--serve",)
"""How a probe is started that answers requests."""
_QUICK = ("--quick", "--addresses", "--deadline", str(LAUNCH_DEADLINE_S))
NAMES = ("local", "ssh", "slurm", "kubernetes", "compose")
SUBMITTED = ("kubernetes", "compose")
"""Those that start the nodes by themselves: a launch submits a job, and nothing is reached."""


class Scheduler(Protocol):
    """What each scheduler's module has."""

    def nodes(self, settings: Settings) -> AbstractContextManager[list[Place]]:
        """Yield the nodes of a job; what holds them is given back at the end.

        Raises:
            UsageError: The settings do not fit this scheduler.
            MachineError: It gives no nodes.
        """

    def command(self, place: Place, module: str, arguments: Sequence[str]) -> list[str]:
        """Return the command, to be run here, whose three streams are those of a module there."""

    def shell(self, place: Place) -> list[str]:
        """Return what rsync starts its other end with, without the host; [] if it cannot."""

    def cure(self, name: str, problem: str) -> str:
        """Return what to do about a node that cannot be reached, "" if that is unknown."""


def name_of(settings: Settings, environ: Mapping[str, str] = os.environ) -> str:
    """Return the scheduler of a job: the one it names, else the one that fits.

    Raises:
        UsageError: The name is unknown, or does not fit the hosts.
    """
    name = settings.on or _fitting(settings, environ)
    if name not in NAMES:
        raise UsageError(f"--on {name!r} is unknown", did_you_mean(name, NAMES))
    if settings.on not in (None, "ssh") and settings.hosts:
        raise UsageError(f"--on {name} does not use {settings.hosts_flag}", "leave one of them out")
    return name


def _fitting(settings: Settings, environ: Mapping[str, str]) -> str:
    if settings.hosts:
        return "slurm" if slurm.holds(settings, environ) else "ssh"
    return "slurm" if slurm.is_around(environ) else "local"


def scheduler(name: str) -> Scheduler:
    """Return a scheduler's module."""
    return cast(Scheduler, importlib.import_module(f"distrun.schedulers.{name}"))


def _reaching(settings: Settings) -> Scheduler:
    """Return the scheduler of a job, whose nodes are reached from here."""
    if (name := name_of(settings)) in SUBMITTED:
        raise UsageError(
            f"--on {name}: no node can be reached from here",
            f"`distrun launch --on {name}` submits a job; in its pods every command works",
        )
    return scheduler(name)


@contextmanager
def opened(
    settings: Settings, *, quick: bool = False, nodes_of: Scheduler | None = None
) -> Iterator[tuple[list[Place], Machines]]:
    """Yield the places of a job's nodes, and its machines to be read; end the probes after.

    Args:
        settings: The job. Without places all of its nodes are on this machine.
        quick: The first snapshot of each leaves out slow parts.
        nodes_of: Gives the nodes; None: the scheduler that is named or that fits.

    Raises:
        UsageError: The settings do not fit their scheduler.
        MachineError: It gives no nodes, or they cannot be asked.
    """
    chosen = nodes_of or _reaching(settings)
    with chosen.nodes(settings) as places:
        if not places:
            yield places, ThisMachine(settings.runs_dir)
            return
        keeps = most_kept()
        before = raise_descriptor_limit()  # each probe has three
        first = [*SERVING, *([*_QUICK] if quick else [])]
        commands = {
            place.name: chosen.command(place, PROBE, [*first, "--name", place.name])
            for place in places
        }
        called = {place.name: place.hostname for place in places}
        try:
            machines = OtherMachines(
                commands,
                called,
                bootstrap=settings.bootstrap,
                soft_limit=before,  # it may become the agent
                keeps=keeps,
            )
            try:
                yield places, machines
            finally:
                machines.close()
        finally:
            if before is not None:  # the caller's process, and what it starts, is as it was
                set_descriptor_limit(before)

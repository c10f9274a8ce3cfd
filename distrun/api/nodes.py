"""The nodes to check: this machine, or others where a probe is started."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Protocol

from distrun.api import elsewhere
from distrun.api.allocation import Allocation
from distrun.api.probes import Answer, Probe, Probes
from distrun.api.reach import with_clocks, with_reaches
from distrun.errors import UsageError, did_you_mean
from distrun.probe.host import port_problem
from distrun.probe.node import read_node
from distrun.probe.nvml import not_read
from distrun.probe.snapshot import Host, Node, Reach, Software
from distrun.spec.job import Settings
from distrun.spec.snapshot import node_of

PLACES = ("local", "ssh", "slurm")
_READ_LIMIT_S = 25.0
"""Time to log in, to start an interpreter, and for a probe's deadline of a hanging driver."""


class Nodes(Protocol):
    """Nodes that can be read repeatedly."""

    def read(self, *, quick: bool = False) -> tuple[Node, ...]:
        """Take a snapshot of each; `quick` leaves out slow parts."""

    def whole_picture(self, master_port: int | None) -> tuple[Node, ...]:
        """Take a snapshot of each, and test the connections between them."""

    def close(self) -> None:
        """End the started probes."""


class ThisMachine:
    """The one node of a job that runs here."""

    def __init__(self, runs_dir: Path) -> None:
        self._runs_dir = runs_dir

    def read(self, *, quick: bool = False) -> tuple[Node, ...]:
        """Take its snapshot."""
        return (read_node(runs_dir=self._runs_dir, quick=quick),)

    def whole_picture(self, master_port: int | None) -> tuple[Node, ...]:
        """Take its snapshot, and test the rendezvous port."""
        (node,) = self.read()
        if master_port is not None and (problem := port_problem(master_port)):
            node = replace(node, reaches=(Reach(node.name, node.name, "", master_port, problem),))
        return (node,)

    def close(self) -> None:
        """Nothing to end."""


class OtherMachines:
    """Nodes where a probe is started.

    Args:
        commands: The command of each probe, by the node's name.
        then: Called at the end.
    """

    def __init__(
        self, commands: Mapping[str, Sequence[str]], then: Callable[[], None] = lambda: None
    ) -> None:
        self._names, self._then = list(commands), then
        self._probes = Probes(commands)
        self._fresh = True

    def read(self, *, quick: bool = False) -> tuple[Node, ...]:
        """Take snapshots of all nodes that answer, in parallel."""
        if not self._fresh:  # a probe starts with a snapshot without a request
            for probe in self._probes.alive:
                probe.send({"read": True, "quick": quick})
        self._fresh = False
        wanted = {probe.name: 1 for probe in self._probes.alive}
        found = self._probes.answers(wanted, _READ_LIMIT_S)
        return tuple(_node(probe, found.get(probe.name, [])) for probe in self._probes.probes)

    def whole_picture(self, master_port: int | None) -> tuple[Node, ...]:
        """Take a snapshot of each, read their clocks, and let them connect to one another."""
        nodes = with_clocks(self.read(), self._probes)
        answered = self._probes.alive
        nodes = with_reaches(nodes, self._probes, master_port)
        # A probe that is only late with its connections keeps its snapshot; its connections are
        # unknown.
        read = [probe.name for probe in answered if probe.late or not probe.gone]
        gone = {probe.name: probe.gone for probe in self._probes.probes}
        return tuple(n if n.name in read else _silent(n.name, gone[n.name]) for n in nodes)

    def close(self) -> None:
        """End the probes."""
        self._probes.close()
        self._then()


def _node(probe: Probe, answers: Sequence[Answer]) -> Node:
    if not answers:
        return _silent(probe.name, probe.gone)
    try:
        return node_of(answers[0], Node, f"the probe on {probe.name}")
    except UsageError as error:  # another version of distrun is installed there
        return _silent(probe.name, error.message)


def _silent(name: str, problem: str) -> Node:
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return Node(name, now, not_read(problem, "failed"), Host(), Software(), problem=problem)


def _share(settings: Settings) -> tuple[str, ...]:
    """Return what the job needs of each node, as options of salloc; (): whole nodes.

    GPU numbers refer to a whole node: in a part of it GPUs are renumbered.
    """
    if not (settings.gpus or "").startswith("free:"):
        return ()
    gpus = int(str(settings.gpus).removeprefix("free:"))
    ranks = settings.nproc_per_node if isinstance(settings.nproc_per_node, int) else gpus
    return (f"--gpus-per-node={gpus}", "--ntasks-per-node=1", f"--cpus-per-task={ranks}")


def open_nodes(settings: Settings, *, on: str = "", python: str = "") -> Nodes:
    """Return the nodes of a job; use `contextlib.closing` to end the probes.

    Args:
        settings: The job.
        on: local, ssh or slurm; "" is ssh where the settings name hosts, else local.
        python: The interpreter on other machines; "" tries this one's path, then python3.

    Raises:
        UsageError: `on` is unknown, or does not fit the settings.
        MachineError: ssh or Slurm is not here, or Slurm gives no nodes.
    """
    place = on or ("ssh" if settings.hosts else "local")
    if place not in PLACES:
        raise UsageError(f"--on {on!r} is unknown", did_you_mean(on, PLACES))
    if place != "ssh" and settings.hosts:
        raise UsageError(f"--on {on} does not use --hosts", "leave one of them out")
    if place == "ssh" and not settings.hosts:
        raise UsageError("--on ssh needs hosts", "--hosts a,b names them")
    if place == "ssh":
        return OtherMachines({h: elsewhere.over_ssh(h, python) for h in settings.hosts})
    if place == "slurm":
        asked = settings.nodes.max if "nodes" in settings.model_fields_set else None
        allocation = Allocation(asked, _share(settings))
        return OtherMachines(
            {h: elsewhere.under_slurm(h, python, allocation.job_id) for h in allocation.hosts},
            allocation.close,
        )
    return ThisMachine(settings.runs_dir)

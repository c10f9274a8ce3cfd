"""The nodes of a job as they are read: this machine, or others where a probe is started."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Protocol

from distrun.errors import UsageError
from distrun.nodes.probes import Probe, Probes
from distrun.nodes.reach import with_clocks, with_reaches
from distrun.probe.host import port_problem
from distrun.probe.node import read_node
from distrun.probe.nvml import not_read
from distrun.probe.snapshot import Host, Node, Reach, Software
from distrun.spec.snapshot import node_of
from distrun.wire import Message

_READ_LIMIT_S = 25.0
"""Time to log in, to start an interpreter, and for a probe's deadline of a hanging driver."""


class Machines(Protocol):
    """Machines that can be read repeatedly."""

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
    """

    def __init__(self, commands: Mapping[str, Sequence[str]]) -> None:
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


def _node(probe: Probe, answers: Sequence[Message]) -> Node:
    if not answers:
        return _silent(probe.name, probe.gone)
    try:
        return node_of(answers[0], Node, f"the probe on {probe.name}")
    except UsageError as error:  # another version of distrun is installed there
        return _silent(probe.name, error.message)


def _silent(name: str, problem: str) -> Node:
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return Node(name, now, not_read(problem, "failed"), Host(), Software(), problem=problem)

"""The nodes of a job as they are read: this machine, or others where a probe is started."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from distrun.errors import UsageError
from distrun.nodes.handed import Kept
from distrun.nodes.probes import Probe, Probes
from distrun.nodes.reach import DEFAULT_MASTER_PORT, with_clocks, with_reaches
from distrun.probe.host import port_problem
from distrun.probe.node import read_node
from distrun.probe.nvml import not_read
from distrun.probe.snapshot import Host, Node, Reach, Software
from distrun.spec.snapshot import node_of
from distrun.wire import Message

_READ_LIMIT_S = 25.0
"""Time to log in, to start an interpreter, and for a probe's deadline of a hanging driver."""
_ANSWER_LIMIT_S = 10.0
_MOST_CLOCKS = 32
"""Clocks are read one after another: of more nodes this would take too long."""


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
        called: Names on the network of nodes that have another name.
        bootstrap: The probes have to be sent distrun.
        soft_limit: Their limit of open files, where this is passed on; None: that of this process.
        keeps: How many of them may become agents.
    """

    def __init__(
        self,
        commands: Mapping[str, Sequence[str]],
        called: Mapping[str, str] = MappingProxyType({}),
        *,
        bootstrap: bool = False,
        soft_limit: int | None = None,
        keeps: int = 0,
    ) -> None:
        self._keeps = keeps
        self._called = called
        self._probes = Probes(commands, bootstrap=bootstrap, soft_limit=soft_limit)
        self._fresh = True

    def read(
        self, *, quick: bool = False, told: Callable[[Node], None] = lambda _: None
    ) -> tuple[Node, ...]:
        """Take snapshots of all nodes that answer, in parallel.

        Args:
            quick: Leave out slow parts.
            told: Called with each node when it has answered.
        """
        if not self._fresh:  # a probe starts with a snapshot without a request
            for probe in self._probes.alive:
                probe.send({"read": True, "quick": quick})
        self._fresh = False
        wanted = {probe.name: 1 for probe in self._probes.alive}
        nodes = {}

        def take(probe: Probe, answers: Sequence[Message]) -> None:
            nodes[probe.name] = _node(probe, answers)
            told(nodes[probe.name])

        self._probes.answers(wanted, _READ_LIMIT_S, take)
        return tuple(nodes.get(p.name) or _silent(p.name, p.gone) for p in self._probes.probes)

    def whole_picture(self, master_port: int | None) -> tuple[Node, ...]:
        """Take a snapshot of each, read their clocks, and let them connect to one another."""
        nodes = with_clocks(self.read(), self._probes)
        answered = self._probes.alive
        nodes = with_reaches(
            nodes, self._probes, master_port or DEFAULT_MASTER_PORT, called=self._called
        )
        return self._without_gone(nodes, answered)

    def connected(
        self, nodes: Sequence[Node], known: Mapping[str, Sequence[str]]
    ) -> tuple[Node, ...]:
        """Return nodes that were read, with their clocks and the connections between them.

        Args:
            nodes: Some of the nodes.
            known: Addresses to try for each, in order.
        """
        if len(nodes) <= _MOST_CLOCKS:
            nodes = with_clocks(nodes, self._probes)
        answered = self._probes.alive
        return self._without_gone(with_reaches(nodes, self._probes, None, known), answered)

    def free_port(self, name: str) -> int | None:
        """Return a port that is free on a node, and held until the probes end."""
        (answer,) = self._ask([name], {"listen": True}).values()
        port = answer.get("port")
        return port if isinstance(port, int) else None

    def port_problem(self, name: str, port: int) -> str:
        """Return why a node cannot listen at a port, as the end of a sentence; "" if it can."""
        (answer,) = self._ask([name], {"listen": True, "port": port}).values()
        return str(answer.get("problem", "" if "port" in answer else "could not be tried"))

    def files(self, names: Sequence[str], file: str, workdir: str) -> dict[str, Message]:
        """Return the SHA-256 of a file on each node, or why it cannot be read there."""
        return self._ask(names, {"file": file, "in": workdir})

    def agents(self, names: Sequence[str]) -> Kept:
        """Make probes the agents of their nodes, as far as they are not too many."""
        since = time.monotonic()
        become = self._probes.become_agents(names[: self._keeps], _ANSWER_LIMIT_S)
        return Kept({p.name: (p.talk, p.child) for p in become if p.child is not None}, since)

    def _ask(self, names: Sequence[str], request: Message) -> dict[str, Message]:
        for probe in self._probes.alive:
            if probe.name in names:
                probe.send(request)
        found = self._probes.answers(dict.fromkeys(names, 1), _ANSWER_LIMIT_S)
        silent = {"problem": f"no answer within {_ANSWER_LIMIT_S:g} s"}
        return {name: answers[0] if answers else silent for name, answers in found.items()}

    def _without_gone(self, nodes: Sequence[Node], answered: Sequence[Probe]) -> tuple[Node, ...]:
        """Return the nodes, without the snapshots of those whose probes have ended.

        A probe that is only late with its connections keeps its snapshot; its connections are
        unknown.
        """
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

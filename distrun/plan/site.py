"""Where a job runs: the machines, as they were read, and how each is reached."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from distrun.probe.host import LOOPBACK, LOOPBACK_INTERFACE
from distrun.probe.snapshot import Node

_VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Machine:
    """One machine."""

    node: Node
    """Its snapshot, taken once."""
    host: str = ""
    """Its name in messages."""
    address: str = LOOPBACK
    """At which the other nodes reach it."""
    interface: str = LOOPBACK_INTERFACE
    """The network interface that has this address; "" if it is unknown."""
    command: tuple[str, ...] = ()
    """What starts its agent, to be run here; empty on this machine."""
    probe: tuple[str, ...] = ()
    """What starts a probe there, likewise."""
    slots: int | None = None
    """How many ranks it may have; None: as many as the job wants."""

    @property
    def cores(self) -> int:
        """Cores within the affinity mask and the cgroup's quota."""
        return max(1, math.ceil(self.node.host.usable_cores or 1))

    def variable(self, name: str) -> str | None:
        """Return a variable of the environment that a rank would have there."""
        return self.node.host.environ.get(name)

    @property
    def visible_devices(self) -> str | None:
        """CUDA_VISIBLE_DEVICES there."""
        return self.variable(_VISIBLE)


@dataclass(frozen=True)
class Site:
    """The machines of a job."""

    machines: tuple[Machine, ...]
    """One a node; or one, on which all nodes are emulated."""
    free_port: int
    """A port that is free on the first one."""
    emulated: bool = True
    """All nodes are on the one machine."""
    own_node: int | None = None
    """The node that this machine is, if the others are started elsewhere; None: all from here."""
    by_head: bool = False
    """Then node 0 supervises all of them; else each itself."""
    rdzv_id: str = ""
    """Name of the rendezvous, the same on all nodes; "": the name of the run."""
    asked: bool = True
    """The snapshots are of the machines themselves, not of this one instead."""

    @property
    def head(self) -> Machine:
        """The machine of node 0."""
        return self.machines[0]

    def first(self, count: int) -> Sequence[Machine]:
        """Return the machine of each of this many nodes."""
        return self.machines * count if self.emulated else self.machines[:count]

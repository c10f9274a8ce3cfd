"""A node as its scheduler knows it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """Where a node is, and how it is to be used."""

    name: str
    """In messages, logs and reports."""
    target: str
    """What the scheduler's own command is told: a host for ssh, a node name for srun."""
    port: int | None = None
    """The port of sshd."""
    job_id: str = ""
    """The allocation that holds it."""
    gpus: int = 0
    """How many GPUs the allocation has there, if it says so."""
    python: str = ""
    """The interpreter there; "": this one's path if it exists there, else python3."""
    address: str = ""
    """At which the other nodes reach it; "": found by connecting."""
    slots: int | None = None
    """How many ranks it may have."""
    bootstrap: bool = False
    """What is started there has to be sent distrun."""

    @property
    def hostname(self) -> str:
        """Its name on the network."""
        return self.target.rpartition("@")[2]


@dataclass(frozen=True)
class OwnNode:
    """This machine, as one of several nodes on each of which the same command was started."""

    platform: str
    """What has started it, for messages."""
    count: int
    """Number of nodes."""
    rank: int
    """Which of them this is."""
    head: str
    """Address or name of node 0."""
    port: int
    """Of the rendezvous, on node 0."""
    rdzv_id: str
    """Name of the rendezvous, the same on all nodes."""
    addresses: tuple[str, ...]
    """Of all nodes, or ()."""
    sources: Mapping[str, str]
    """`nodes`, `node_rank`, `master_addr`, `master_port`, `rdzv_id` -> its variable."""
    by_head: bool = False
    """Node 0 supervises all nodes, which dial in to it; else each supervises itself."""

    def lines(self) -> Iterator[str]:
        """Yield what was read and from where, a line each."""
        yield f"{self.platform}:"
        for what, value in (
            ("nodes", self.count),
            ("node_rank", self.rank),
            ("master_addr", self.head),
            ("master_port", self.port),
            ("rdzv_id", self.rdzv_id),
        ):
            yield f"  {what.replace('_', ' ')} {value} ({self.sources[what]})"

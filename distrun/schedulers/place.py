"""A node as its scheduler knows it."""

from __future__ import annotations

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

"""All nodes ought to have the same number of active InfiniBand ports."""

from __future__ import annotations

from distrun.checks.nics import is_active
from distrun.checks.nodes.compare import Fact, compared
from distrun.checks.rule import Rule, Severity
from distrun.checks.words import counted
from distrun.probe.snapshot import Node


def _active(node: Node) -> str:
    count = sum(is_active(port.state) for port in node.host.infiniband)
    return counted(count, "active InfiniBand port")


RULE = Rule(
    id="nodes.infiniband.count",
    title="InfiniBand ports, over nodes",
    why="NCCL pairs the adapters of one node with those of the other: with one missing, a rank"
    " falls back to sockets or shares another's port.",
    fix="`ibstat` on the node with fewer; host.infiniband tells which port is down.",
    source="leptonai/gpud, NVIDIA/nvidia-resiliency-ext",
    judge=compared(Fact(_active, "have"), Severity.FAIL),
    gpus_only=True,
)

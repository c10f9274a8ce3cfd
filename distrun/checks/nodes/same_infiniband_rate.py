"""InfiniBand ports of all nodes ought to be equally fast."""

from __future__ import annotations

from distrun.checks.nics import is_active
from distrun.checks.nodes.compare import Fact, compared
from distrun.checks.rule import Rule, Severity
from distrun.probe.snapshot import Node


def _rates(node: Node) -> str | None:
    ports = [port for port in node.host.infiniband if is_active(port.state)]
    return " and ".join(sorted({port.rate for port in ports if port.rate})) or None


RULE = Rule(
    id="nodes.infiniband.rate",
    title="InfiniBand rate, over nodes",
    why="A ring is as fast as its slowest link: one port that trained at a lower rate slows every"
    " all_reduce.",
    fix="`ibstat` and `mlxlink -d DEVICE` on the slow node; reseat or change its cable.",
    source="leptonai/gpud, Azure/azurehpc-health-checks",
    judge=compared(
        Fact(_rates, "have", "InfiniBand at", missing=lambda node: "the rate was not read"),
        Severity.WARN,
        lambda node: any(is_active(port.state) for port in node.host.infiniband),
    ),
    gpus_only=True,
)

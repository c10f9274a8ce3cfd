"""The MTU must be one on the whole way between nodes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from distrun.checks.limits import Limits
from distrun.checks.nics import has_roce
from distrun.checks.nodes.compare import compare, nic_field
from distrun.checks.rule import Job, Observation, Rule, Severity
from distrun.probe.snapshot import Node


def _judge(nodes: Sequence[Node], job: Job, limits: Limits) -> Iterator[Observation]:
    roce = any(has_roce(node.host) for node in nodes)
    fact = nic_field("mtu", "MTU", str)
    yield from compare(nodes, fact, Severity.FAIL if roce else Severity.WARN)


RULE = Rule(
    id="nodes.mtu",
    title="MTU, over nodes",
    why="Packets larger than the other side takes are lost: small messages work, and a large"
    " all_reduce hangs. RDMA has no way to make them smaller on the road.",
    fix="`ip link set NAME mtu 9000` (or 1500) alike on every node and on the switches between;"
    " `ping -M do -s 8972 HOST` tries it.",
    source="NVIDIA/nccl#1524, NVIDIA/nccl#2135",
    judge=_judge,
)

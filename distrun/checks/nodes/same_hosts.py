"""What ought to be the same of the networks, cores and memory of all nodes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from distrun.checks.limits import Limits
from distrun.checks.nics import has_roce, is_active
from distrun.checks.nodes.compare import Fact, compare, compared, nic_field
from distrun.checks.rule import Job, Observation, Rule, Severity
from distrun.checks.words import counted, rate
from distrun.probe.snapshot import Node


def _active(node: Node) -> str:
    count = sum(is_active(port.state) for port in node.host.infiniband)
    return counted(count, "active InfiniBand port")


def _rates(node: Node) -> str | None:
    ports = [port for port in node.host.infiniband if is_active(port.state)]
    return " and ".join(sorted({port.rate for port in ports if port.rate})) or None


def _mtu(nodes: Sequence[Node], job: Job, limits: Limits) -> Iterator[Observation]:
    roce = any(has_roce(node.host) for node in nodes)
    fact = nic_field("mtu", "MTU", str)
    yield from compare(nodes, fact, Severity.FAIL if roce else Severity.WARN)


def _cores(node: Node) -> str | None:
    cores = node.host.usable_cores
    return None if cores is None else f"{cores:g} usable cores"


_STEP_GIB = 8
"""Kernels keep a little for themselves, each its own: nodes of one kind differ by that."""


def _memory(node: Node) -> str | None:
    nbytes = node.host.memory_total_nbytes
    if nbytes is None:
        return None
    return f"about {round(nbytes / 2**30 / _STEP_GIB) * _STEP_GIB} GiB of memory"


RULES = (
    Rule(
        id="nodes.infiniband.count",
        title="InfiniBand ports, over nodes",
        why="NCCL pairs the adapters of one node with those of the other: with one missing, a rank"
        " falls back to sockets or shares another's port.",
        fix="`ibstat` on the node with fewer; host.infiniband tells which port is down.",
        source="leptonai/gpud, NVIDIA/nvidia-resiliency-ext",
        judge=compared(Fact(_active, "have"), Severity.FAIL),
        gpus_only=True,
    ),
    Rule(
        id="nodes.infiniband.rate",
        title="InfiniBand rate, over nodes",
        why="A ring is as fast as its slowest link: one port that trained at a lower rate slows"
        " every all_reduce.",
        fix="`ibstat` and `mlxlink -d DEVICE` on the slow node; reseat or change its cable.",
        source="leptonai/gpud, Azure/azurehpc-health-checks",
        judge=compared(
            Fact(_rates, "have", "InfiniBand at", missing=lambda node: "the rate was not read"),
            Severity.WARN,
            lambda node: any(is_active(port.state) for port in node.host.infiniband),
        ),
        gpus_only=True,
    ),
    Rule(
        id="nodes.mtu",
        title="MTU, over nodes",
        why="Packets larger than the other side takes are lost: small messages work, and a large"
        " all_reduce hangs. RDMA has no way to make them smaller on the road.",
        fix="`ip link set NAME mtu 9000` (or 1500) alike on every node and on the switches between;"
        " `ping -M do -s 8972 HOST` tries it.",
        source="NVIDIA/nccl#1524, NVIDIA/nccl#2135",
        judge=_mtu,
    ),
    Rule(
        id="nodes.nic.speed",
        title="Network speed, over nodes",
        why="A ring is as fast as its slowest link: one port that came up at a lower speed slows"
        " every all_reduce.",
        fix="`ethtool NAME` on the slow node; reseat or change its cable, and look at the switch"
        " port.",
        source="distrun's own rule",
        judge=compared(nic_field("speed_mbps", "a network of", rate), Severity.WARN),
    ),
    Rule(
        id="nodes.cpu",
        title="Cores, over nodes",
        why="The node with fewer cores loads its data more slowly, and the others wait for it.",
        fix="Ask for the same of every node: Slurm --cpus-per-task, Kubernetes"
        " resources.limits.cpu.",
        source="distrun's own rule",
        judge=compared(
            Fact(
                _cores,
                "have",
                missing=lambda node: node.host.missing.get("usable_cores") or "not read",
            ),
            Severity.INFO,
        ),
    ),
    Rule(
        id="nodes.memory",
        title="Memory, over nodes",
        why="What fits on one node, such as a data set in memory, may not fit on the other.",
        fix="Choose nodes of one kind; memory that is less than it should be is a broken module"
        " (`dmidecode -t memory`).",
        source="distrun's own rule",
        judge=compared(
            Fact(
                _memory,
                "have",
                missing=lambda node: node.host.missing.get("memory_total_nbytes") or "not read",
            ),
            Severity.INFO,
        ),
    ),
)

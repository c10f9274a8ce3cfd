"""Networks, cores and memory that should be equal on all nodes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from distrun.checks.limits import Limits
from distrun.checks.nics import has_roce, is_active
from distrun.checks.nodes.compare import Fact, compare, compared, nic_field
from distrun.checks.rule import Observation, Rule, Severity, Workload
from distrun.checks.words import counted, rate
from distrun.probe.snapshot import Node


def _active(node: Node) -> str:
    count = sum(is_active(port.state) for port in node.host.infiniband)
    return counted(count, "active InfiniBand port")


def _rates(node: Node) -> str | None:
    ports = [port for port in node.host.infiniband if is_active(port.state)]
    return " and ".join(sorted({port.rate for port in ports if port.rate})) or None


def _mtu(nodes: Sequence[Node], job: Workload, limits: Limits) -> Iterator[Observation]:
    roce = any(has_roce(node.host) for node in nodes)
    fact = nic_field("mtu", "MTU", str)
    yield from compare(nodes, fact, Severity.FAIL if roce else Severity.WARN)


def _cores(node: Node) -> str | None:
    cores = node.host.usable_cores
    return None if cores is None else f"{cores:g} usable cores"


_STEP_GIB = 8
"""The memory that kernels reserve differs slightly between equal nodes."""


def _memory(node: Node) -> str | None:
    nbytes = node.host.memory_total_nbytes
    if nbytes is None:
        return None
    return f"about {round(nbytes / 2**30 / _STEP_GIB) * _STEP_GIB} GiB of memory"


RULES = (
    Rule(
        id="nodes.infiniband.count",
        title="InfiniBand ports, over nodes",
        why="NCCL pairs the adapters of one node with those of another: if one is missing, a"
        " rank falls back to sockets or shares a port.",
        fix="`ibstat` on the node with fewer; host.infiniband reports which port is down.",
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
        why="Packets larger than the receiver's MTU are dropped: small messages work, and a"
        " large all_reduce hangs. RDMA does not fragment packets.",
        fix="`ip link set NAME mtu 9000` (or 1500) on every node and the same on the switches;"
        " `ping -M do -s 8972 HOST` tests it.",
        source="NVIDIA/nccl#1524, NVIDIA/nccl#2135",
        judge=_mtu,
    ),
    Rule(
        id="nodes.nic.speed",
        title="Network speed, over nodes",
        why="A ring is as fast as its slowest link: one port that came up at a lower speed slows"
        " every all_reduce.",
        fix="`ethtool NAME` on the slow node; reseat or change its cable, and check the switch"
        " port.",
        source="distrun's own rule",
        judge=compared(nic_field("speed_mbps", "a network of", rate), Severity.WARN),
    ),
    Rule(
        id="nodes.cpu",
        title="Cores, over nodes",
        why="A node with fewer cores loads its data more slowly, and the others wait for it.",
        fix="Request the same number on every node: Slurm --cpus-per-task, Kubernetes"
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
        why="Data that fits into one node's memory may not fit into another's.",
        fix="Choose nodes of one kind; less memory than installed means a broken module"
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

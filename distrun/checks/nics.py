"""The network interfaces and RDMA ports of a node that a job uses."""

from __future__ import annotations

from collections.abc import Sequence

from distrun.checks.rule import Severity, Workload
from distrun.probe.snapshot import Host, InfinibandPort, Nic

IFNAMES = ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME")
LOOPBACKS = ("lo", "lo0")
_VIRTUAL = ("docker", "br-", "veth", "virbr", "cni", "flannel", "cali", "tun", "tap", "podman")


def chosen_names(variable: str, value: str, names: Sequence[str]) -> list[str]:
    """Return the interfaces that an *_IFNAME selects, by the rules of its library.

    NCCL takes prefixes (`eth`), whole names (`=eth0`) or exclusions (`^docker,lo`); gloo takes
    whole names.
    """
    if not variable.startswith("NCCL_"):
        wanted = [part.strip() for part in value.split(",")]
        return [name for name in names if name in wanted]
    left_out, exact = value.startswith("^"), value.lstrip("^").startswith("=")
    parts = [part.strip() for part in value.lstrip("^").lstrip("=").split(",") if part.strip()]

    def named(name: str) -> bool:
        return any(name == part if exact else name.startswith(part) for part in parts)

    return [name for name in names if named(name) is not left_out]


def data_nics(host: Host) -> tuple[Nic, ...]:
    """Return the interfaces that a job would use.

    Those that an *_IFNAME selects; else the fastest ones that are up and have an address, without
    bridges and other virtual ones.
    """
    up = [nic for nic in host.nics if nic.up]
    names = [nic.name for nic in up]
    for variable in IFNAMES:
        if value := host.environ.get(variable):
            chosen = chosen_names(variable, value, names)
            if named := tuple(nic for nic in up if nic.name in chosen):
                return named
    useful = [nic for nic in up if nic.addresses and not nic.name.startswith(_VIRTUAL)]
    real = [nic for nic in useful if nic.physical] or useful
    best = max((nic.speed_mbps or 0 for nic in real), default=0)
    return tuple(nic for nic in real if (nic.speed_mbps or 0) == best)


def rdma_ports(host: Host) -> tuple[InfinibandPort, ...]:
    """Return the active ports; if there are InfiniBand ports, without those of Ethernet."""
    active = tuple(port for port in host.infiniband if is_active(port.state))
    return tuple(port for port in active if port.link_layer == "InfiniBand") or active


def has_roce(host: Host) -> bool:
    """Return whether RDMA would use Ethernet on this node."""
    return any(port.link_layer == "Ethernet" for port in rdma_ports(host))


def rdma_severity(host: Host, job: Workload) -> Severity:
    """Return the severity of a wrong RDMA setup.

    Most current network cards support RoCE; on one machine that does not mean it will be used.
    """
    return Severity.INFO if has_roce(host) and job.nnodes < 2 else Severity.WARN


def is_active(state: str) -> bool:
    """Return whether a port's state from sysfs is active."""
    return state.startswith("4")

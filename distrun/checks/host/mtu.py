"""RoCE needs an MTU above Ethernet's default."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from distrun.checks.each import each_host, unread
from distrun.checks.limits import Limits
from distrun.checks.nics import rdma_ports, rdma_severity
from distrun.checks.rule import Observation, Rule, Severity, Workload
from distrun.probe.snapshot import Host


def _check(host: Host, job: Workload, limits: Limits) -> Iterator[Observation]:
    known = {nic.name: nic for nic in host.nics}
    names: dict[str, None] = {}
    for port in rdma_ports(host):
        if port.link_layer == "Ethernet":
            names.update(dict.fromkeys(port.nics))
            if not known.keys() & port.nics:
                device = f"{port.device}:{port.port}"
                yield Observation(Severity.SKIP, "its interface is not visible", "", device=device)
    for nic in (known[name] for name in names if name in known):
        if nic.mtu is None:
            for seen in unread(nic, "mtu"):
                yield replace(seen, device=nic.name)
        elif nic.mtu < limits.roce_mtu:
            wanted = f"{limits.roce_mtu} or more, for RoCE"
            how = rdma_severity(host, job)
            yield Observation(how, f"MTU {nic.mtu}", wanted, device=nic.name)


RULE = Rule(
    id="host.mtu",
    title="MTU under RoCE",
    why="RDMA packets are then limited to 1024 bytes, and their headers cost bandwidth.",
    fix="`ip link set NAME mtu 9000` on every node, and jumbo frames on the switches.",
    source="NVIDIA/nccl#1524, NVIDIA/nccl#2135",
    judge=each_host(_check),
)

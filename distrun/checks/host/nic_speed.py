"""The network between nodes should be fast enough for gradients."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from distrun.checks.each import each_host, unread
from distrun.checks.limits import Limits
from distrun.checks.nics import data_nics, is_active
from distrun.checks.rule import Observation, Rule, Severity, Workload
from distrun.checks.words import rate
from distrun.probe.snapshot import Host


def _check(host: Host, job: Workload, limits: Limits) -> Iterator[Observation]:
    if job.nnodes < 2 or any(is_active(port.state) for port in host.infiniband):
        return  # no or almost no traffic goes over it
    least = limits.nic_speed_warn_mbps
    for nic in data_nics(host):
        if nic.speed_mbps is None:
            for seen in unread(nic, "speed_mbps"):
                yield replace(seen, device=nic.name)
        elif nic.speed_mbps < least:
            yield Observation(
                Severity.WARN, rate(nic.speed_mbps), f"{rate(least)} or more", device=nic.name
            )


RULE = Rule(
    id="host.nic.speed",
    title="Speed of the network interface",
    why="The gradients of every step go over it: at 1 Gb/s those of 100 million parameters"
    " take more than three seconds.",
    fix="Choose the faster interface (NCCL_SOCKET_IFNAME, GLOO_SOCKET_IFNAME); if the link"
    " should be faster, check `ethtool NAME` and the switch port.",
    source="distrun's own rule",
    judge=each_host(_check),
)

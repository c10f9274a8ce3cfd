"""A job on several nodes needs an interface that is up."""

from __future__ import annotations

from collections.abc import Iterator

from distrun.checks.each import each_host, unread
from distrun.checks.limits import Limits
from distrun.checks.nics import data_nics
from distrun.checks.rule import Observation, Rule, Severity, Workload
from distrun.probe.snapshot import Host


def _check(host: Host, job: Workload, limits: Limits) -> Iterator[Observation]:
    if job.nnodes < 2:
        return
    if "nics" in host.missing:
        yield from unread(host, "nics")
    elif not data_nics(host):
        found = ", ".join(nic.name for nic in host.nics if not nic.up)
        observed = f"none (down: {found})" if found else "none"
        yield Observation(Severity.FAIL, observed, "an interface that is up and has an address")


RULE = Rule(
    id="host.nic",
    title="Network interface",
    why="Without one the node cannot reach the others.",
    fix="`ip -br link` shows the state; `ip link set NAME up`, and check the cable and DHCP.",
    source="distrun's own rule",
    judge=each_host(_check),
)

"""The hostname must not resolve to a loopback address."""

from __future__ import annotations

from collections.abc import Iterator

from distrun.checks.each import each_host, unread
from distrun.checks.limits import Limits
from distrun.checks.rule import Observation, Rule, Severity, Workload
from distrun.listen import is_loopback
from distrun.probe.snapshot import Host


def _check(host: Host, job: Workload, limits: Limits) -> Iterator[Observation]:
    addresses = host.hostname_addresses
    if "hostname_addresses" in host.missing:
        yield from unread(host, "hostname_addresses")
        return
    if not host.hostname or (addresses and not is_loopback(addresses[0])):
        return  # gloo binds the first address
    if host.environ.get("GLOO_SOCKET_IFNAME"):
        return  # gloo then uses the interface, not the name
    meaning = f"is {', '.join(addresses)}" if addresses else "resolves to nothing"
    yield Observation(
        # On one node the loopback works.
        Severity.FAIL if job.nnodes > 1 else Severity.INFO,
        f"{host.hostname} {meaning}",
        "an address that other nodes can reach",
    )


RULE = Rule(
    id="host.hostname",
    title="Hostname that resolves to the loopback",
    why="gloo announces the address that the hostname resolves to. The other nodes then"
    " connect to themselves, are refused or wait for minutes, and the error names 127.0.1.1.",
    fix="Map the name to the node's real address in /etc/hosts, and remove the line with"
    " 127.0.1.1 (it is used first, wherever it is in the file); or export"
    " GLOO_SOCKET_IFNAME=<interface> on that node.",
    source="pytorch/gloo#223, ray-project/ray#37461, vllm-project/vllm#7074",
    judge=each_host(_check),
    quick=True,
)

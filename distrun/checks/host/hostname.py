"""The machine's own name must not mean the loopback."""

from __future__ import annotations

from collections.abc import Iterator

from distrun.checks.each import each_host, unread
from distrun.checks.limits import Limits
from distrun.checks.rule import Job, Observation, Rule, Severity
from distrun.probe.snapshot import Host


def _look(host: Host, job: Job, limits: Limits) -> Iterator[Observation]:
    addresses = host.hostname_addresses
    if "hostname_addresses" in host.missing:
        yield from unread(host, "hostname_addresses")
        return
    if not host.hostname or (addresses and not _is_loopback(addresses[0])):
        return  # gloo binds the first, whatever follows
    if host.environ.get("GLOO_SOCKET_IFNAME"):
        return  # gloo asks the interface then, and not the name
    meaning = f"is {', '.join(addresses)}" if addresses else "resolves to nothing"
    yield Observation(
        # On one node the loopback does.
        Severity.FAIL if job.nnodes > 1 else Severity.INFO,
        f"{host.hostname} {meaning}",
        "an address that other nodes reach",
    )


def _is_loopback(address: str) -> bool:
    return address.startswith("127.") or address == "::1"


RULE = Rule(
    id="host.hostname",
    title="Hostname that means the loopback",
    why="gloo announces the address that the hostname resolves to: the other nodes then connect"
    " to themselves, are refused or wait for minutes, and the message names 127.0.1.1.",
    fix="Give the name the node's real address in /etc/hosts, and take the line with 127.0.1.1 out"
    " (it comes first, wherever it stands); or export"
    " GLOO_SOCKET_IFNAME=<interface> on that node.",
    source="pytorch/gloo#223, ray-project/ray#37461, vllm-project/vllm#7074",
    judge=each_host(_look),
    quick=True,
)

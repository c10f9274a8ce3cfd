"""The loopback interface must be up."""

from __future__ import annotations

from collections.abc import Iterator

from distrun.checks.each import each_host, unread
from distrun.checks.limits import Limits
from distrun.checks.rule import Observation, Rule, Severity, Workload
from distrun.probe.snapshot import Host


def _check(host: Host, job: Workload, limits: Limits) -> Iterator[Observation]:
    if "loopback_problem" in host.missing:
        yield from unread(host, "loopback_problem")
    elif host.loopback_problem:
        # Ranks of several nodes use other addresses.
        severity = Severity.FAIL if job.nnodes == 1 else Severity.WARN
        yield Observation(
            severity, f"127.0.0.1: {host.loopback_problem}", "a loopback that is up", device="lo"
        )


RULE = Rule(
    id="host.loopback",
    title="Loopback interface",
    why="Ranks of one node connect to 127.0.0.1. If the loopback is down, as in a new network"
    " namespace, they wait for the whole join timeout.",
    fix="`ip link set lo up`, as root or in the container that made the namespace",
    source="distrun's own rule",
    judge=each_host(_check),
    quick=True,
)

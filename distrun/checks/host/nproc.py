"""The limit of processes and threads must be high enough."""

from __future__ import annotations

from collections.abc import Iterator

from distrun.checks.each import each_host, unread
from distrun.checks.limits import Limits
from distrun.checks.rule import Observation, Rule, Severity, Workload
from distrun.checks.words import counted
from distrun.probe.snapshot import Host


def _check(host: Host, job: Workload, limits: Limits) -> Iterator[Observation]:
    need = limits.nproc_per_rank * job.nproc_per_node + limits.nproc_base
    least = limits.nproc_least_per_rank * job.nproc_per_node
    used = host.nproc_used or 0
    if host.nproc is None:
        yield from unread(host, "nproc")
    elif host.nproc_used is not None and 0 <= host.nproc < used + least:
        expected = f"room for {least} more, for {counted(job.nproc_per_node, 'rank')} to start"
        yield Observation(Severity.FAIL, f"{host.nproc}, with {used} in use", expected)
    elif 0 <= host.nproc < need:
        expected = f"{need} or more for {counted(job.nproc_per_node, 'rank')}"
        yield Observation(Severity.WARN, str(host.nproc), expected)


RULE = Rule(
    id="host.nproc",
    title="Limit of processes and threads",
    why="Threads of OpenMP, NCCL and DataLoader workers count. Above the limit a rank fails"
    " with `Resource temporarily unavailable`, often in the middle of an epoch.",
    fix="`ulimit -u 65536`; docker run --pids-limit=-1; Kubernetes: podPidsLimit of the kubelet; on"
    " a host nproc in /etc/security/limits.conf.",
    source="distrun's own rule",
    judge=each_host(_check),
    quick=True,
)

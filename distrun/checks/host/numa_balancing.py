"""Automatic NUMA balancing should be off."""

from __future__ import annotations

from collections.abc import Iterator

from distrun.checks.each import each_node, unread
from distrun.checks.limits import Limits
from distrun.checks.rule import Observation, Rule, Severity, Workload
from distrun.probe.snapshot import Node


def _check(node: Node, job: Workload, limits: Limits) -> Iterator[Observation]:
    host = node.host
    if not node.nvml.present or host.numa_nodes == 1:
        return
    if host.numa_balancing is None or host.numa_nodes is None:
        yield from unread(host, "numa_nodes", "numa_balancing")
    elif host.numa_balancing:
        yield Observation(Severity.WARN, f"on, with {host.numa_nodes} NUMA nodes", "off")


RULE = Rule(
    id="host.numa_balancing",
    title="Automatic NUMA balancing",
    why="The kernel unmaps pages to find out which node uses them, and moves them. The pauses"
    " show as jitter of single ranks, and all others wait.",
    fix="`sysctl kernel.numa_balancing=0`, and permanently in /etc/sysctl.d; bind ranks with"
    " torchrun's --numa-binding instead.",
    source="stas00/ml-engineering; RCCL, net_ib.cc",
    judge=each_node(_check),
    gpus_only=True,
)

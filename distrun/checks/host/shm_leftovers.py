"""Segments in /dev/shm whose owners have ended."""

from __future__ import annotations

from collections.abc import Iterator

from distrun.checks.each import each_host, unread
from distrun.checks.limits import Limits
from distrun.checks.rule import Observation, Rule, Severity, Workload
from distrun.checks.words import counted, some
from distrun.probe.snapshot import Host


def _check(host: Host, job: Workload, limits: Limits) -> Iterator[Observation]:
    left = host.shm_leftovers
    if "shm_leftovers" in host.missing:
        yield from unread(host, "shm_leftovers")
    if left:
        text = f"{counted(len(left), 'leftover')}: {some(left, 3)}"
        yield Observation(Severity.WARN, text, "none", device="/dev/shm")


RULE = Rule(
    id="host.shm.leftovers",
    title="Leftovers in /dev/shm",
    why="NCCL segments of killed jobs occupy memory until a reboot, so the next job has less.",
    fix="When no job runs on the node: `rm /dev/shm/nccl-*`.",
    source="NVIDIA/nccl#525",
    judge=each_host(_check),
)

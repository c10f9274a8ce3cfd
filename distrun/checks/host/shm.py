"""/dev/shm must hold what ranks of one node share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from distrun.checks.limits import Limits
from distrun.checks.rule import Job, Observation, Rule, Severity
from distrun.probe.snapshot import Node


def _judge(nodes: Sequence[Node], job: Job, limits: Limits) -> Iterator[Observation]:
    for node in nodes:
        free = node.host.shm_free_nbytes
        if free is None:
            reason = node.host.missing.get("shm_free_nbytes", "not read")
            yield Observation(Severity.SKIP, reason, "", node.name, "/dev/shm")
        elif not node.host.shm_writable:
            yield Observation(Severity.FAIL, "not writable", "writable", node.name, "/dev/shm")
        elif free <= limits.shm_warn_nbytes:
            fatal = free <= limits.shm_fail_nbytes and job.nproc_per_node > 1
            yield Observation(
                Severity.FAIL if fatal else Severity.WARN,
                f"{free >> 20} MiB free",
                f"above {limits.shm_warn_nbytes >> 20} MiB",
                node.name,
                "/dev/shm",
            )


RULE = Rule(
    id="host.shm",
    title="Shared memory in /dev/shm",
    why="NCCL, gloo and DataLoader workers of one node share memory there; when it is full a"
    " rank dies of SIGBUS, or NCCL fails with an unhandled system error.",
    fix="docker run --shm-size=8g (or --ipc=host); elsewhere mount -o remount,size=8g /dev/shm",
    source="NVIDIA/nccl#290, NVIDIA/nccl#342",
    judge=_judge,
    quick=True,
)

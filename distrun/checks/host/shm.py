"""/dev/shm must be large enough for the ranks of a node."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from distrun.checks.each import each_host, unread
from distrun.checks.limits import Limits
from distrun.checks.rule import Observation, Rule, Severity, Workload
from distrun.checks.words import mib
from distrun.probe.snapshot import Host

_DEVICE = "/dev/shm"


def _check(host: Host, job: Workload, limits: Limits) -> Iterator[Observation]:
    for seen in _in_it(host, job, limits):
        yield replace(seen, device=_DEVICE)


def _in_it(host: Host, job: Workload, limits: Limits) -> Iterator[Observation]:
    free = host.shm_free_nbytes
    if host.shm_writable is False:
        severity = Severity.FAIL if job.uses_gpus else Severity.WARN
        yield Observation(severity, "not writable", "writable")
    elif free is None:
        yield from unread(host, "shm_free_nbytes")
    elif free <= limits.shm_warn_nbytes:
        fatal = free <= limits.shm_fail_nbytes and job.nproc_per_node > 1
        severity = Severity.FAIL if fatal else Severity.WARN
        if not job.uses_gpus:  # gloo does not use it; DataLoader workers may
            severity = Severity.INFO
        yield Observation(severity, f"{mib(free)} free", f"above {mib(limits.shm_warn_nbytes)}")
    elif host.shm_writable is None:
        yield from unread(host, "shm_writable")


RULE = Rule(
    id="host.shm",
    title="Shared memory in /dev/shm",
    why="NCCL and DataLoader workers share memory there. When it is full a rank is killed by"
    " SIGBUS, or NCCL fails with an unhandled system error.",
    fix="docker run --shm-size=8g (or --ipc=host); Kubernetes: an emptyDir with medium: Memory at"
    " /dev/shm; elsewhere `mount -o remount,size=8g /dev/shm`.",
    source="NVIDIA/nccl#290, NVIDIA/nccl#342",
    judge=each_host(_check),
    quick=True,
)

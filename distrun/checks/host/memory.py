"""The ranks need enough memory within the machine's and the container's limits."""

from __future__ import annotations

from collections.abc import Iterator

from distrun.checks.each import each_host, unread
from distrun.checks.limits import Limits
from distrun.checks.rule import Observation, Rule, Severity, Workload
from distrun.checks.words import mib
from distrun.probe.snapshot import Host


def _check(host: Host, job: Workload, limits: Limits) -> Iterator[Observation]:
    available, limit = host.memory_available_nbytes, host.memory_limit_nbytes
    if available is None:
        yield from unread(host, "memory_available_nbytes")
        return
    below = host.memory_limit_left_nbytes
    left = min(nbytes for nbytes in (available, limit, below) if nbytes is not None)
    unused = f", {mib(below)} of it unused" if below is not None else ""
    capped = f" (the container's limit is {mib(limit)}{unused})" if limit is not None else ""
    least, enough = limits.memory_per_rank_fail_nbytes, limits.memory_per_rank_warn_nbytes
    share = left / job.nproc_per_node
    if share < enough:
        short = share < least
        yield Observation(
            Severity.FAIL if short else Severity.WARN,
            f"{mib(int(share))} available for each rank{capped}",
            f"{mib(least if short else enough)} or more",
        )


RULE = Rule(
    id="host.memory",
    title="Memory for the ranks",
    why="torch takes 250 MB in each rank at import, at best half of it shared. When memory"
    " runs out the kernel kills a rank without a traceback (signal 9).",
    fix="docker run --memory, Slurm --mem, Kubernetes resources.limits.memory: ask for more;"
    " or start fewer ranks (--nproc-per-node).",
    source="distrun's own rule",
    judge=each_host(_check),
    quick=True,
)

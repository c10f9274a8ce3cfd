"""The ranks need enough cores within the affinity mask and the container's quota."""

from __future__ import annotations

from collections.abc import Iterator

from distrun.checks.each import each_host, unread
from distrun.checks.limits import Limits
from distrun.checks.rule import Observation, Rule, Severity, Workload
from distrun.checks.words import counted
from distrun.probe.snapshot import Host


def _check(host: Host, job: Workload, limits: Limits) -> Iterator[Observation]:
    cores, ranks, plenty = host.usable_cores, job.nproc_per_node, limits.cores_per_rank_warn
    if cores is None:
        yield from unread(host, "usable_cores")
        return
    of = f" of {host.cpu_count}" if host.cpu_count and host.cpu_count > cores else ""
    observed = f"{cores:g}{of} cores for {counted(ranks, 'rank')}"
    if cores < ranks:
        # Ranks on the CPU may share cores: trying out 4 ranks on 2 cores is common.
        severity = Severity.WARN if job.uses_gpus else Severity.INFO  # slow but correct
        yield Observation(severity, observed, "a core for each rank")
    elif job.uses_gpus and cores < plenty * ranks:
        yield Observation(Severity.WARN, observed, f"{plenty:g} cores for each rank")


RULE = Rule(
    id="host.cpu",
    title="Cores for the ranks",
    why="A rank launches kernels, feeds its GPU and runs NCCL's proxy thread: without its own"
    " core it stalls, and all others wait. In a container os.cpu_count() returns too many.",
    fix="docker run --cpus N, Slurm --cpus-per-task N, Kubernetes resources.limits.cpu; or start"
    " fewer ranks (--nproc-per-node).",
    source="distrun's own rule",
    judge=each_host(_check),
    quick=True,
)

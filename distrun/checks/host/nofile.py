"""The limit of open files must be high enough."""

from __future__ import annotations

from collections.abc import Iterator

from distrun.checks.each import each_host, unread
from distrun.checks.limits import Limits
from distrun.checks.rule import Observation, Rule, Severity, Workload
from distrun.probe.snapshot import Host


def _check(host: Host, job: Workload, limits: Limits) -> Iterator[Observation]:
    world_size = job.nnodes * job.nproc_per_node
    need = limits.nofile_per_rank * world_size + limits.nofile_base
    if host.nofile is None:
        yield from unread(host, "nofile")
    elif host.nofile < 0:
        return  # unlimited
    elif host.nofile < need:
        expected = f"{need} or more for a world of {world_size}"
        yield Observation(Severity.FAIL, str(host.nofile), expected)
    elif job.nnodes > 1 and host.nofile < limits.nofile_warn:
        yield Observation(Severity.WARN, str(host.nofile), f"{limits.nofile_warn} or more")


RULE = Rule(
    id="host.nofile",
    title="Limit of open files",
    why="gloo and NCCL hold sockets to many other ranks, and a DataLoader passes a descriptor"
    " for each tensor: above the limit a rank fails with `Too many open files`.",
    fix="Run `ulimit -n 65536` before the launch; docker run --ulimit nofile=65536; on a host"
    " nofile in /etc/security/limits.conf, LimitNOFILE for slurmd or sshd.",
    source="distrun's own rule: gloo connects all pairs of ranks",
    judge=each_host(_check),
    quick=True,
)

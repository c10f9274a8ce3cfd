"""RDMA needs locked memory."""

from __future__ import annotations

from collections.abc import Iterator

from distrun.checks.each import each_host, unread
from distrun.checks.limits import Limits
from distrun.checks.nics import rdma_ports, rdma_severity
from distrun.checks.rule import Observation, Rule, Workload
from distrun.checks.words import mib
from distrun.probe.snapshot import Host


def _check(host: Host, job: Workload, limits: Limits) -> Iterator[Observation]:
    if not rdma_ports(host):
        return  # no RDMA, so no locked memory
    if host.memlock_nbytes is None:
        yield from unread(host, "memlock_nbytes")
    elif host.memlock_nbytes >= 0:
        yield Observation(rdma_severity(host, job), mib(host.memlock_nbytes), "unlimited")


RULE = Rule(
    id="host.memlock",
    title="Limit of locked memory",
    why="RDMA buffers are locked in memory. Above the limit ibv_reg_mr fails with ENOMEM, and"
    " NCCL with an unhandled system error.",
    fix="docker run --ulimit memlock=-1; on a host `* - memlock unlimited` in"
    " /etc/security/limits.conf, and LimitMEMLOCK=infinity for slurmd or sshd.",
    source="openucx/ucx#8229, microsoft/mscclpp#335",
    judge=each_host(_check),
)

"""A kernel module for GPUDirect RDMA should be loaded."""

from __future__ import annotations

import re
from collections.abc import Iterator

from distrun.checks.each import each_node, unread
from distrun.checks.limits import Limits
from distrun.checks.nics import rdma_ports, rdma_severity
from distrun.checks.rule import Observation, Rule, Severity, Workload
from distrun.probe.snapshot import Node

_WITH_DMABUF = (5, 12)


def _check(node: Node, job: Workload, limits: Limits) -> Iterator[Observation]:
    host = node.host
    if not node.nvml.present or not rdma_ports(host):
        return
    if host.peermem is None:
        yield from unread(host, "peermem")
    elif not host.peermem:
        dmabuf = bool(host.open_driver) and _version(host.kernel) >= _WITH_DMABUF
        yield Observation(
            Severity.INFO if dmabuf else rdma_severity(host, job),
            "no module for GPUDirect RDMA" + (": NCCL uses DMA-BUF" if dmabuf else ""),
            "nvidia_peermem loaded",
        )


def _version(kernel: str) -> tuple[int, ...]:
    found = re.match(r"(\d+)\.(\d+)", kernel)
    return tuple(map(int, found.groups())) if found else ()


RULE = Rule(
    id="host.peermem",
    title="GPUDirect RDMA",
    why="Without it all data between nodes is copied through the host's memory, at half of the"
    " bandwidth or less. From kernel 5.12 on, with the open driver, NCCL uses DMA-BUF instead.",
    fix="`modprobe nvidia_peermem`; NCCL_DEBUG=INFO prints `GDRDMA` for each channel that uses it.",
    source="NCCL, gdr.cc; NVIDIA/nccl#897, NVIDIA/nccl#1939",
    judge=each_node(_check),
    gpus_only=True,
)

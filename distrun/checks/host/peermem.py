"""The kernel module that lets network cards read GPU memory."""

from __future__ import annotations

from collections.abc import Iterator

from distrun.checks.each import each_node, unread
from distrun.checks.limits import Limits
from distrun.checks.nics import is_active
from distrun.checks.rule import Job, Observation, Rule, Severity
from distrun.probe.snapshot import Node


def _look(node: Node, job: Job, limits: Limits) -> Iterator[Observation]:
    host = node.host
    if not node.nvml.present or not any(is_active(port.state) for port in host.infiniband):
        return
    if host.peermem is None:
        yield from unread(host, "peermem")
    elif not host.peermem:
        yield Observation(Severity.WARN, "no module for GPUDirect RDMA", "nvidia_peermem loaded")


RULE = Rule(
    id="host.peermem",
    title="GPUDirect RDMA",
    why="Without it everything between nodes is copied through the host's memory: half of the"
    " bandwidth, or less. On kernel 5.12 with the open driver NCCL may do with DMA-BUF instead.",
    fix="`modprobe nvidia_peermem`; NCCL_DEBUG=INFO says `GDRDMA` for each channel that has it.",
    source="NCCL, gdr.cc; NVIDIA/nccl#897, NVIDIA/nccl#1939",
    judge=each_node(_look),
    gpus_only=True,
)

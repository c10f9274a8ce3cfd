"""BAR1 must be large enough for GPUDirect RDMA."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from distrun.checks.each import device, unread
from distrun.checks.limits import Limits
from distrun.checks.rule import Observation, Rule, Severity, Workload
from distrun.checks.words import mib
from distrun.probe.snapshot import Node


def _judge(nodes: Sequence[Node], job: Workload, limits: Limits) -> Iterator[Observation]:
    for node in nodes:
        if not node.host.infiniband:
            continue  # nothing maps it
        for gpu in node.nvml.present:
            total, least = gpu.bar1_total_nbytes, limits.bar1_warn_nbytes
            if total is None:
                for seen in unread(gpu, "bar1_total_nbytes"):
                    yield replace(seen, node=node.name, device=device(gpu))
            elif total <= least:
                wanted = f"above {mib(least)}"
                yield Observation(Severity.WARN, mib(total), wanted, node.name, device(gpu))


RULE = Rule(
    id="gpu.bar1",
    title="BAR1 beside an RDMA network",
    why="GPUDirect RDMA maps the GPU's memory through BAR1. If BAR1 is too small, registration"
    " fails and traffic goes through the host's memory.",
    fix='Enable "above 4G decoding" and resizable BAR in the BIOS.',
    source="Mellanox/nv_peer_memory#101",
    judge=_judge,
    gpus_only=True,
)

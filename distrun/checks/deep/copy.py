"""Compares the rate of copies from the host to each GPU."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from distrun.checks.each import each_node
from distrun.checks.limits import Limits
from distrun.checks.rule import Observation, Rule, Severity, Workload
from distrun.probe.snapshot import Node


def _check(node: Node, job: Workload, limits: Limits) -> Iterator[Observation]:
    ranks = node.measured.ranks if node.measured else ()
    rates = {rank: rank.copy_bandwidth for rank in ranks if rank.copy_bandwidth is not None}
    if len(rates) < 2:
        return
    usual = statistics.median(rates.values())
    least = limits.copy_share_warn * usual
    for rank, rate in rates.items():
        if rate < least:
            yield Observation(
                Severity.WARN,
                f"{rate / 1e9:.3g} GB/s to the GPU",
                f"{least / 1e9:.3g} or more: the median is {usual / 1e9:.3g}",
                device=f"rank {rank.rank} {rank.device}",
            )


RULE = Rule(
    id="deep.copy",
    title="Copies to each GPU",
    why="Batches are copied this way, and so is NCCL's traffic to a NIC or through shared"
    " memory: a PCIe link of half its width, or memory on the other socket, slows all ranks"
    " down.",
    fix="See gpu.pcie.width and gpu.pcie.generation; bind ranks to the socket of their GPU"
    " (torchrun --numa-binding node).",
    source="distrun's own rule; Azure/azurehpc-health-checks has floors for its own machines",
    judge=each_node(_check),
    gpus_only=True,
)

"""Each rank of a node needs its own GPU."""

from __future__ import annotations

from collections.abc import Iterator

from distrun.checks.each import each_node
from distrun.checks.limits import Limits
from distrun.checks.rule import Observation, Rule, Severity, Workload
from distrun.checks.words import counted
from distrun.probe.snapshot import Node


def _check(node: Node, job: Workload, limits: Limits) -> Iterator[Observation]:
    if node.nvml.problem or not job.uses_gpus:
        return  # gpu.driver gives the reason if there are none; ranks on the CPU need none
    visible = node.host.environ.get("CUDA_VISIBLE_DEVICES")
    count = len(node.nvml.visible(visible))
    if count < job.nproc_per_node:
        limited = "" if visible is None else f" (CUDA_VISIBLE_DEVICES={visible})"
        if refused := len(node.nvml.refused_gpus):
            limited += f"; {refused} more may not be opened"
        yield Observation(
            Severity.FAIL,
            counted(count, "usable GPU") + limited,
            f"{job.nproc_per_node}, one for each rank of the node",
        )


RULE = Rule(
    id="gpu.count",
    title="As many GPUs as ranks",
    why="Two ranks on one GPU deadlock in NCCL or are refused as duplicates; a rank without a"
    " GPU fails with an invalid device ordinal.",
    fix="Lower --nproc-per-node to the number of GPUs, widen CUDA_VISIBLE_DEVICES, or ask the"
    " scheduler for more GPUs a node.",
    source="NCCL: `Duplicate GPU detected`",
    judge=each_node(_check),
    quick=True,
    gpus_only=True,
)

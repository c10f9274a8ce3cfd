"""All nodes ought to have the same number of GPUs."""

from __future__ import annotations

from distrun.checks.nodes.compare import Fact, compared
from distrun.checks.rule import Rule, Severity
from distrun.checks.words import counted
from distrun.probe.snapshot import Node


def _count(node: Node) -> str | None:
    nvml = node.nvml
    if nvml.problem and nvml.problem_kind != "absent":
        return None  # it has some, and gave no answer
    return counted(len(nvml.present), "GPU")


RULE = Rule(
    id="nodes.gpu.count",
    title="Number of GPUs, over nodes",
    why="Every node starts the same number of ranks; the one with fewer GPUs cannot.",
    fix="Leave that node out, bring its GPUs back (gpu.lost and gpu.excluded may tell why), or"
    " lower --nproc-per-node.",
    source="facebookresearch/gcm, Azure/azurehpc-health-checks",
    judge=compared(Fact(_count, "have", missing=lambda node: node.nvml.problem), Severity.FAIL),
    gpus_only=True,
)

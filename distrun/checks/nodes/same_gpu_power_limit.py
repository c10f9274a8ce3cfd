"""GPUs of all nodes ought to have the same power limit."""

from __future__ import annotations

from distrun.checks.nodes.compare import compared, gpu_field, has_gpus
from distrun.checks.rule import Rule, Severity


def _show(limit_w: float) -> str:
    return f"{limit_w:g} W"


RULE = Rule(
    id="nodes.gpu.power_limit",
    title="Power limit of GPUs, over nodes",
    why="Under load the GPUs with the lower limit run at lower clocks, and all ranks wait for"
    " them.",
    fix="Set the same on every node: `nvidia-smi -pl WATTS` as root.",
    source="distrun's own rule",
    judge=compared(gpu_field("power_limit_w", "a power limit of", _show), Severity.WARN, has_gpus),
    gpus_only=True,
)

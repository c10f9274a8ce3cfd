"""GPUs of one model ought to have the same firmware on all nodes."""

from __future__ import annotations

from distrun.checks.nodes.compare import compared, gpu_field, has_gpus
from distrun.checks.rule import Rule, Severity

RULE = Rule(
    id="nodes.gpu.vbios",
    title="GPU firmware (VBIOS), over nodes",
    why="It sets power and clock curves: GPUs of one model then run at different speeds.",
    fix="Have the vendor's firmware update run on the nodes that differ.",
    source="distrun's own rule",
    judge=compared(gpu_field("vbios_version", "VBIOS", str), Severity.WARN, has_gpus),
    gpus_only=True,
)

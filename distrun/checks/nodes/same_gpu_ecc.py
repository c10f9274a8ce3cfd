"""GPUs of all nodes ought to have ECC on, or off, alike."""

from __future__ import annotations

from distrun.checks.nodes.compare import compared, gpu_field, has_gpus
from distrun.checks.rule import Rule, Severity


def _show(mode: bool) -> str:
    return "on" if mode else "off"


RULE = Rule(
    id="nodes.gpu.ecc",
    title="ECC mode, over nodes",
    why="GPUs without ECC have a little more memory and bandwidth, and may compute with flipped"
    " bits: results and speed differ by node.",
    fix="`nvidia-smi -e 1` on the nodes without, then reset their GPUs.",
    source="distrun's own rule",
    judge=compared(gpu_field("ecc_mode", "ECC", _show), Severity.WARN, has_gpus),
    gpus_only=True,
)

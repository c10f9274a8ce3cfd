"""All nodes ought to have GPUs of the same model."""

from __future__ import annotations

from distrun.checks.nodes.compare import Fact, compared, has_gpus
from distrun.checks.rule import Rule, Severity
from distrun.probe.snapshot import Node


def _models(node: Node) -> str | None:
    return " + ".join(sorted({gpu.name for gpu in node.nvml.present if gpu.name})) or None


RULE = Rule(
    id="nodes.gpu.model",
    title="GPU models, over nodes",
    why="Every step waits for the slowest GPU, and the smallest memory decides the batch size.",
    fix="Choose nodes of one kind (Slurm: --constraint or --gres=gpu:MODEL:N).",
    source="stas00/ml-engineering",
    judge=compared(
        Fact(_models, "have", missing=lambda node: "no GPU tells its name"),
        Severity.WARN,
        has_gpus,
    ),
    gpus_only=True,
)

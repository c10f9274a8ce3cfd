"""All nodes ought to run the same NVIDIA driver."""

from __future__ import annotations

from distrun.checks.nodes.compare import compared, field, has_driver
from distrun.checks.rule import Rule, Severity

RULE = Rule(
    id="nodes.driver",
    title="Driver, over nodes",
    why="NCCL chooses its ways by what each driver can do, and faults that only one version has"
    " show on some nodes alone.",
    fix="Install the same driver on every node, and reboot them.",
    source="stas00/ml-engineering; docs.nvidia.com/deploy/cuda-compatibility",
    judge=compared(
        field(lambda node: node.nvml, "driver_version", "driver"), Severity.WARN, has_driver
    ),
    gpus_only=True,
)

"""All nodes ought to run the same kernel."""

from __future__ import annotations

from distrun.checks.nodes.compare import compared, field
from distrun.checks.rule import Rule, Severity

RULE = Rule(
    id="nodes.kernel",
    title="Kernel, over nodes",
    why="Network and RDMA drivers, and faults, come with the kernel: a node that was not"
    " rebooted after an update behaves unlike the others.",
    fix="Install the same kernel on every node, and reboot those that run an older one.",
    source="distrun's own rule",
    judge=compared(field(lambda node: node.host, "kernel", "kernel"), Severity.WARN),
)

"""Network interfaces of all nodes ought to be equally fast."""

from __future__ import annotations

from distrun.checks.nodes.compare import compared, nic_field
from distrun.checks.rule import Rule, Severity
from distrun.checks.words import rate

RULE = Rule(
    id="nodes.nic.speed",
    title="Network speed, over nodes",
    why="A ring is as fast as its slowest link: one port that came up at a lower speed slows"
    " every all_reduce.",
    fix="`ethtool NAME` on the slow node; reseat or change its cable, and look at the switch port.",
    source="distrun's own rule",
    judge=compared(nic_field("speed_mbps", "a network of", rate), Severity.WARN),
)

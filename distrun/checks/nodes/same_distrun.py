"""All nodes ought to run the same distrun."""

from __future__ import annotations

from distrun.checks.nodes.compare import compared, field
from distrun.checks.rule import Rule, Severity

RULE = Rule(
    id="nodes.distrun",
    title="distrun, over nodes",
    why="The agents of a run talk to the launcher: between versions a message may not be"
    " understood.",
    fix="pip install the same version of distrun on every node.",
    source="distrun's own rule",
    judge=compared(field(lambda node: node.software, "distrun", "distrun"), Severity.WARN),
)

"""All nodes ought to run the same Python."""

from __future__ import annotations

from distrun.checks.nodes.compare import compared, field
from distrun.checks.rule import Rule, Severity

RULE = Rule(
    id="nodes.python",
    title="Python, over nodes",
    why="Objects are pickled from rank to rank, and compiled packages are built for one version:"
    " a script that runs here may not there.",
    fix="Use one environment or one image on all nodes; --python names the interpreter.",
    source="distrun's own rule",
    judge=compared(field(lambda node: node.software, "python", "Python"), Severity.WARN),
)

"""Whether all nodes have the same memory."""

from __future__ import annotations

from distrun.checks.nodes.compare import Fact, compared
from distrun.checks.rule import Rule, Severity
from distrun.probe.snapshot import Node

_STEP_GIB = 8
"""Kernels keep a little for themselves, each its own: nodes of one kind differ by that."""


def _memory(node: Node) -> str | None:
    nbytes = node.host.memory_total_nbytes
    if nbytes is None:
        return None
    return f"about {round(nbytes / 2**30 / _STEP_GIB) * _STEP_GIB} GiB of memory"


RULE = Rule(
    id="nodes.memory",
    title="Memory, over nodes",
    why="What fits on one node, such as a data set in memory, may not fit on the other.",
    fix="Choose nodes of one kind; memory that is less than it should be is a broken module"
    " (`dmidecode -t memory`).",
    source="distrun's own rule",
    judge=compared(
        Fact(
            _memory,
            "have",
            missing=lambda node: node.host.missing.get("memory_total_nbytes") or "not read",
        ),
        Severity.INFO,
    ),
)

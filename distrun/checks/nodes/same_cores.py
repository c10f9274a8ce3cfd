"""Whether all nodes leave the same number of cores to a job."""

from __future__ import annotations

from distrun.checks.nodes.compare import Fact, compared
from distrun.checks.rule import Rule, Severity
from distrun.probe.snapshot import Node


def _cores(node: Node) -> str | None:
    cores = node.host.usable_cores
    return None if cores is None else f"{cores:g} usable cores"


RULE = Rule(
    id="nodes.cpu",
    title="Cores, over nodes",
    why="The node with fewer cores loads its data more slowly, and the others wait for it.",
    fix="Ask for the same of every node: Slurm --cpus-per-task, Kubernetes resources.limits.cpu.",
    source="distrun's own rule",
    judge=compared(
        Fact(
            _cores,
            "have",
            missing=lambda node: node.host.missing.get("usable_cores") or "not read",
        ),
        Severity.INFO,
    ),
)

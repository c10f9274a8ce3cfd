"""A node or a link that is slower than the others."""

from __future__ import annotations

from collections.abc import Iterator

from distrun.checks.each import each_node
from distrun.checks.limits import Limits
from distrun.checks.rule import Observation, Rule, Severity, Workload
from distrun.probe.snapshot import Node


def _check(node: Node, job: Workload, limits: Limits) -> Iterator[Observation]:
    for sentence in node.measured.slow if node.measured else ():
        yield Observation(Severity.WARN, sentence, "about the usual time")


RULE = Rule(
    id="deep.pairs",
    title="Links between all pairs of ranks or nodes",
    why="A ring is as fast as its slowest link: one bad cable, port or NVLink slows every"
    " collective down, and an average over all ranks does not show which one.",
    fix="`distrun bench-comm --op pairs` measures it again; swap the cable or the port, or"
    " leave the node out.",
    source="distrun's own rule: twice the median time, measured without other traffic",
    judge=each_node(_check),
)

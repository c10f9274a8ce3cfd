"""A node or a link that is slower than the others."""

from __future__ import annotations

from collections.abc import Iterator

from distrun.checks.each import each_node
from distrun.checks.limits import Limits
from distrun.checks.rule import Job, Observation, Rule, Severity
from distrun.probe.snapshot import Node


def _look(node: Node, job: Job, limits: Limits) -> Iterator[Observation]:
    for sentence in node.measured.slow if node.measured else ():
        yield Observation(Severity.WARN, sentence, "about the usual time")


RULE = Rule(
    id="deep.pairs",
    title="Links between every two ranks or nodes",
    why="A ring is as fast as its slowest link: one bad cable, port or NVLink slows every"
    " collective down, and its average over all ranks does not show where.",
    fix="`distrun bench-comm --op pairs` measures it again, alone; swap the cable or the port, or"
    " leave the node out.",
    source="distrun's own rule: twice the usual time, measured alone",
    judge=each_node(_look),
)

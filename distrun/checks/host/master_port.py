"""The rendezvous port must be free on the first node."""

from __future__ import annotations

from collections.abc import Iterator

from distrun.checks.each import each_node
from distrun.checks.limits import Limits
from distrun.checks.rule import Job, Observation, Rule, Severity
from distrun.probe.snapshot import Node


def _look(node: Node, job: Job, limits: Limits) -> Iterator[Observation]:
    for reach in node.reaches:
        if reach.source == reach.target and reach.problem:
            yield Observation(Severity.FAIL, f"port {reach.port} {reach.problem}", "a free port")


RULE = Rule(
    id="host.port",
    title="Rendezvous port",
    why="All ranks meet at this port of the first node; if another process has it, they fail"
    " with `Address already in use`, or meet a stranger and wait for each other in vain.",
    fix="--master-port names another; on one machine leave it out, and a free one is taken;"
    " `ss -ltnp` shows who has it.",
    source="torchrun",
    judge=each_node(_look),
)

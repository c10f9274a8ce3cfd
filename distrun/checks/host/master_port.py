"""The rendezvous port must be free on the first node."""

from __future__ import annotations

from collections.abc import Iterator

from distrun.checks.each import each_node
from distrun.checks.limits import Limits
from distrun.checks.rule import Observation, Rule, Severity, Workload
from distrun.probe.snapshot import Node


def _check(node: Node, job: Workload, limits: Limits) -> Iterator[Observation]:
    for reach in node.reaches:
        if reach.source == reach.target and reach.problem:
            yield Observation(Severity.FAIL, f"port {reach.port} {reach.problem}", "a free port")


RULE = Rule(
    id="host.port",
    title="Rendezvous port",
    why="All ranks connect to this port of the first node. If another process uses it, they"
    " fail with `Address already in use`, or connect to that process and wait until their"
    " timeout.",
    fix="Choose another port with --master-port; on one machine leave it out, and a free port"
    " is picked; `ss -ltnp` shows the process.",
    source="torchrun",
    judge=each_node(_check),
)

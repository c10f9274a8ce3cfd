"""A small job must finish with the right sum."""

from __future__ import annotations

from collections.abc import Iterator

from distrun.checks.each import each_node
from distrun.checks.limits import Limits
from distrun.checks.rule import Observation, Rule, Severity, Workload
from distrun.probe.snapshot import Node


def _check(node: Node, job: Workload, limits: Limits) -> Iterator[Observation]:
    found = node.measured
    if found is None:
        return
    if found.problem:
        yield Observation(Severity.FAIL, found.problem, "a job that exits with 0")
    elif found.all_reduce_right is False:
        yield Observation(Severity.FAIL, "an all_reduce gave a wrong sum", "the right one")


RULE = Rule(
    id="deep.job",
    title="A small job",
    why="It joins all ranks, multiplies matrices and reduces eight bytes. If that fails,"
    " training fails too; a wrong sum means that links or memory corrupt data.",
    fix="The verdict above and the run's logs name the rank; `distrun bench-comm` says which"
    " results are wrong.",
    source="distrun's own rule",
    judge=each_node(_check),
)

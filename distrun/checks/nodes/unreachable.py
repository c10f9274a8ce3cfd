"""A node whose probe came to no end cannot be judged, nor trusted with ranks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from distrun.checks.limits import Limits
from distrun.checks.rule import Job, Observation, Rule, Severity
from distrun.probe.snapshot import Node


def _judge(nodes: Sequence[Node], job: Job, limits: Limits) -> Iterator[Observation]:
    for node in nodes:
        if node.problem:
            yield Observation(Severity.FAIL, node.problem, "a finished probe", node.name)


RULE = Rule(
    id="nodes.unreachable",
    title="Every node answers",
    why="A node that cannot be looked at cannot be started on either: the others would wait for"
    " its ranks until the join timeout.",
    fix="Try the same way by hand: `ssh -o BatchMode=yes NODE true`, or in Slurm's job `srun"
    " --overlap --nodes=1 --nodelist=NODE true`, must end at once and ask for nothing. If Python"
    " or distrun is what is missing there, --python names an interpreter that has it. If it hangs,"
    " look at the node's `dmesg`.",
    source="distrun's own rule",
    judge=_judge,
    quick=True,
)

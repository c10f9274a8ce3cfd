"""Every node's probe must finish."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from distrun.checks.limits import Limits
from distrun.checks.rule import Observation, Rule, Severity, Workload
from distrun.probe.snapshot import Node


def _judge(nodes: Sequence[Node], job: Workload, limits: Limits) -> Iterator[Observation]:
    for node in nodes:
        if node.problem:
            yield Observation(Severity.FAIL, node.problem, "a finished probe", node.name)


RULE = Rule(
    id="nodes.unreachable",
    title="Every node answers",
    why="Ranks cannot start on a node whose probe fails: the other nodes would wait for them"
    " until the join timeout.",
    fix="Try the same connection by hand: `ssh -o BatchMode=yes NODE true`, or in Slurm's job `srun"
    " --overlap --nodes=1 --nodelist=NODE true`, must end at once without a prompt. If Python"
    " or distrun is missing there, name an interpreter with --python. If it hangs, read the"
    " node's `dmesg`.",
    source="distrun's own rule",
    judge=_judge,
    quick=True,
)

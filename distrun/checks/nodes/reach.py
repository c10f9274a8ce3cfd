"""Each node must be able to connect to the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from distrun.checks.limits import Limits
from distrun.checks.rule import Job, Observation, Rule, Severity
from distrun.probe.snapshot import Node


def _judge(nodes: Sequence[Node], job: Job, limits: Limits) -> Iterator[Observation]:
    if len(nodes) < 2:
        return
    for node in nodes:
        tried = {node.name, *(reach.target for reach in node.reaches)}
        if untold := [other.name for other in nodes if other.name not in tried]:
            some = "" if len(untold) == len(nodes) - 1 else f" to {', '.join(untold)}"
            yield Observation(Severity.SKIP, f"connections{some} were not tried", "", node.name)
        for reach in node.reaches:
            if reach.problem and reach.source != reach.target:  # else it is host.port's
                what = "rendezvous port " if reach.port == job.master_port else ""
                yield Observation(
                    Severity.FAIL,
                    f"{reach.source} does not reach {reach.target}, {what}"
                    f"{reach.address}:{reach.port}: {reach.problem}",
                    "a connection",
                    node.name,
                )


RULE = Rule(
    id="nodes.reach",
    title="Connections between nodes",
    why="Every rank connects to the rendezvous port of the first node, and gloo and NCCL to"
    " random ports of all others, both ways: what is blocked hangs until its timeout.",
    fix="Refused: the port is taken or nobody listens on that address. Timed out: a firewall or"
    " a security group; allow all TCP ports between the nodes. No route, or a loopback address:"
    " /etc/hosts, DNS or the interface.",
    source="torchrun and gloo; pytorch/gloo#223",
    judge=_judge,
)

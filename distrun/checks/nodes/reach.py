"""Each node must be able to connect to the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from distrun.checks.limits import Limits
from distrun.checks.rule import Observation, Rule, Severity, Workload
from distrun.probe.snapshot import Node


def _judge(nodes: Sequence[Node], job: Workload, limits: Limits) -> Iterator[Observation]:
    if len(nodes) < 2:
        return
    for node in nodes:
        tried = {node.name, *(reach.target for reach in node.reaches)}
        if untold := [other.name for other in nodes if other.name not in tried]:
            some = "" if len(untold) == len(nodes) - 1 else f" to {', '.join(untold)}"
            yield Observation(Severity.SKIP, f"connections{some} were not tried", "", node.name)
        for reach in node.reaches:
            if reach.problem and reach.source != reach.target:  # else host.port reports it
                what = "rendezvous port " if reach.port == job.master_port else ""
                yield Observation(
                    Severity.FAIL,
                    f"{reach.source} cannot reach {reach.target}, {what}"
                    f"{reach.address}:{reach.port}: {reach.problem}",
                    "a connection",
                    node.name,
                )


RULE = Rule(
    id="nodes.reach",
    title="Connections between nodes",
    why="Every rank connects to the rendezvous port of the first node; gloo and NCCL connect"
    " to random ports of all other nodes, in both directions. A blocked connection hangs until"
    " its timeout.",
    fix="Refused: the port is in use, or nothing listens on that address. Timed out: a"
    " firewall or a security group; allow all TCP ports between the nodes. No route, or a"
    " loopback address: check /etc/hosts, DNS and the interface.",
    source="torchrun and gloo; pytorch/gloo#223",
    judge=_judge,
)

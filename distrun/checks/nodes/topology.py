"""The GPU topology should be equal on all nodes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from distrun.checks.limits import Limits
from distrun.checks.nodes.compare import Fact, compare
from distrun.checks.rule import Observation, Rule, Severity, Workload
from distrun.probe.snapshot import GpuPair, Node

_WAYS = {0: "self", 10: "PIX", 20: "PXB", 30: "PHB", 40: "NODE", 50: "SYS"}


def _judge(nodes: Sequence[Node], job: Workload, limits: Limits) -> Iterator[Observation]:
    alike: dict[int, list[Node]] = {}
    for node in nodes:
        # with other GPU counts the matrix differs; nodes.gpu.count reports that
        if node.nvml.pairs:
            alike.setdefault(len(node.nvml.present), []).append(node)
    for group in alike.values():
        yield from compare(group, Fact(_matrix, "have", missing=_why), Severity.WARN)


def _matrix(node: Node) -> str | None:
    """Return `pairs 0-1, 2-3 by PIX, other pairs by SYS`: the whole matrix in short form."""
    if any(pair.topology is None for pair in node.nvml.pairs):
        return None
    ways: dict[str, list[str]] = {}
    for pair in node.nvml.pairs:
        ways.setdefault(_way(pair), []).append(f"{pair.a}-{pair.b}")
    ordered = sorted(ways.items(), key=lambda item: (len(item[1]), item[0]))
    *rare, (usual, _) = ordered
    parts = [f"pairs {', '.join(pairs)} by {way}" for way, pairs in rare]
    return ", ".join([*parts, f"{'other' if rare else 'all'} pairs by {usual}"])


def _way(pair: GpuPair) -> str:
    if pair.nvlinks:
        return f"NV{pair.nvlinks}"
    return _WAYS.get(pair.topology or 0, str(pair.topology))


def _why(node: Node) -> str:
    reasons = (pair.missing.get("topology") for pair in node.nvml.pairs)
    return next(filter(None, reasons), "not read")


RULE = Rule(
    id="nodes.topology",
    title="Topology of GPUs, over nodes",
    why="NCCL builds one plan for all nodes: if they differ, it uses what the slowest one"
    " supports, and a binding of ranks to GPUs that fits one node is wrong on another.",
    fix="Run `nvidia-smi topo -m` on both; look for cards in other slots, missing NVLink"
    " bridges, or virtual machines with another PCI layout.",
    source="stas00/ml-engineering",
    judge=_judge,
    gpus_only=True,
)

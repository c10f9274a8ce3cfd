"""GPUs that share an NVLink domain must be in the same clique."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from distrun.checks.each import device, unread
from distrun.checks.limits import Limits
from distrun.checks.nodes.compare import compare, gpu_field
from distrun.checks.rule import Observation, Rule, Severity, Workload
from distrun.probe.snapshot import Node

_CLIQUE = gpu_field("fabric_clique_id", "clique", str)


def _judge(nodes: Sequence[Node], job: Workload, limits: Limits) -> Iterator[Observation]:
    domains: dict[tuple[str, ...], list[Node]] = {}
    for node in nodes:
        if len(nodes) > 1:
            yield from _unread(node)
        uuids = sorted({gpu.fabric_cluster_uuid or "" for gpu in node.nvml.present} - {""})
        if any(uuid.strip("0-") for uuid in uuids):  # zero: NVSwitches within one machine
            domains.setdefault(tuple(uuids), []).append(node)
            cliques = {gpu.fabric_clique_id for gpu in node.nvml.present} - {None}
            if len(cliques) > 1:
                text = f"its GPUs are in {len(cliques)} cliques"
                yield Observation(Severity.WARN, text, "one clique", node.name)
    for inside in domains.values():
        yield from compare(inside, _CLIQUE, Severity.WARN)
    if len(domains) > 1:
        names = "; ".join(", ".join(node.name for node in inside) for inside in domains.values())
        yield Observation(Severity.INFO, f"{len(domains)} NVLink domains: {names}", "")


def _unread(node: Node) -> Iterator[Observation]:
    for gpu in node.nvml.present:
        if gpu.fabric_cluster_uuid is None:
            for seen in unread(gpu, "fabric_cluster_uuid"):
                yield replace(seen, node=node.name, device=device(gpu))


RULE = Rule(
    id="nodes.fabric",
    title="NVLink domain, over nodes",
    why="NCCL uses NVLink between nodes only inside one clique of one cluster UUID; other"
    " traffic uses the network, at a tenth of the bandwidth.",
    fix="`nvidia-smi -q` under Fabric on each node; nvidia-imex must run with the same list of"
    " nodes on all of them, and the partition must contain all GPUs.",
    source="NCCL, mnnvl.cc",
    judge=_judge,
    gpus_only=True,
)

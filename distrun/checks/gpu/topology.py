"""GPUs that are connected only across CPU sockets."""

from __future__ import annotations

from collections.abc import Iterator

from distrun.checks.each import each_node
from distrun.checks.limits import Limits
from distrun.checks.rule import Observation, Rule, Severity, Workload
from distrun.checks.words import some
from distrun.probe.snapshot import Node

_ACROSS_SOCKETS = 50


def _check(node: Node, job: Workload, limits: Limits) -> Iterator[Observation]:
    pairs = node.nvml.pairs
    for pair in pairs:
        if pair.topology is None:
            reason = pair.missing.get("topology") or "not read"
            yield Observation(Severity.SKIP, reason, "", device=f"GPUs {pair.a} and {pair.b}")
    far = [pair for pair in pairs if pair.topology == _ACROSS_SOCKETS and not pair.nvlinks]
    if far:
        named = some([f"{pair.a}-{pair.b}" for pair in far], 4)
        yield Observation(
            # A single rank uses no other GPU of its node.
            Severity.WARN if job.nproc_per_node > 1 else Severity.INFO,
            f"{len(far)} of {len(pairs)} pairs across the sockets (SYS): {named}",
            "NVLink, or a common PCIe switch or root",
        )


RULE = Rule(
    id="gpu.topology",
    title="GPUs on different sockets without NVLink",
    why="Their traffic goes through both CPUs and the link between them, at a fraction of the"
    " bandwidth, and slows data loading.",
    fix="If fewer GPUs are enough, choose those of one socket (`nvidia-smi topo -m`) by"
    " CUDA_VISIBLE_DEVICES or --gpus; else keep tensor parallelism within a socket.",
    source="stas00/ml-engineering, network",
    judge=each_node(_check),
    gpus_only=True,
)

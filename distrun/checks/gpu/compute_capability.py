"""The GPUs of a node should have one compute capability."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from distrun.checks.each import device, unread
from distrun.checks.limits import Limits
from distrun.checks.rule import Observation, Rule, Severity, Workload
from distrun.probe.snapshot import Node


def _judge(nodes: Sequence[Node], job: Workload, limits: Limits) -> Iterator[Observation]:
    for node in nodes:
        found: Counter[str] = Counter()
        for gpu in node.nvml.gpus:
            if gpu.compute_capability is not None:
                found[f"{gpu.name} ({gpu.compute_capability})"] += 1
            elif not gpu.lost:
                for seen in unread(gpu, "compute_capability"):
                    yield Observation(seen.severity, seen.observed, "", node.name, device(gpu))
        if len({text.rpartition("(")[2] for text in found}) > 1:
            mix = ", ".join(f"{count} × {text}" for text, count in found.most_common())
            yield Observation(Severity.WARN, mix, "one compute capability", node.name)


RULE = Rule(
    id="gpu.capability",
    title="Mixed compute capabilities",
    why="Every step waits for the slowest GPU, NCCL uses only algorithms that all of them"
    " support, and kernels and dtypes of newer GPUs are missing on older ones.",
    fix="Choose equal GPUs by index, with CUDA_VISIBLE_DEVICES or `distrun launch --gpus`.",
    source="stas00/ml-engineering, gpu-test",
    judge=_judge,
    gpus_only=True,
)

"""GPUs of one node ought to be of one generation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from distrun.checks.each import device, unread
from distrun.checks.limits import Limits
from distrun.checks.rule import Job, Observation, Rule, Severity
from distrun.probe.snapshot import Node


def _judge(nodes: Sequence[Node], job: Job, limits: Limits) -> Iterator[Observation]:
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
    why="Every step waits for the slowest GPU, NCCL picks the algorithm that all of them can do,"
    " and kernels and number formats of the newer ones are missing on the older.",
    fix="Choose equal GPUs with CUDA_VISIBLE_DEVICES, or `distrun launch --gpus` by index.",
    source="stas00/ml-engineering, gpu-test",
    judge=_judge,
    gpus_only=True,
)

"""A GPU with fewer NVLinks up than its siblings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from distrun.checks.each import device, unread
from distrun.checks.limits import Limits
from distrun.checks.rule import Job, Observation, Rule, Severity
from distrun.probe.snapshot import Gpu, Node


def _judge(nodes: Sequence[Node], job: Job, limits: Limits) -> Iterator[Observation]:
    for node in nodes:
        usual: dict[str, Counter[int]] = {}
        for gpu in node.nvml.present:
            if gpu.nvlinks is not None:
                usual.setdefault(gpu.name, Counter())[_active(gpu)] += 1
        for gpu in node.nvml.present:
            for seen in _look(gpu, usual.get(gpu.name, Counter())):
                yield replace(seen, node=node.name, device=device(gpu))


def _look(gpu: Gpu, usual: Counter[int]) -> Iterator[Observation]:
    if gpu.nvlinks is None:
        yield from unread(gpu, "nvlinks")
        return
    # Of counts equally common the greater one is what the GPU was built with.
    most = max(usual, key=lambda count: (usual[count], count))
    if _active(gpu) < most:
        down = ", ".join(str(link.link) for link in gpu.nvlinks if not link.active)
        which = f" (down: {down})" if down else ""
        yield Observation(
            Severity.FAIL, f"{_active(gpu)} NVLinks up{which}", f"{most}, as its siblings have"
        )


def _active(gpu: Gpu) -> int:
    return sum(link.active for link in gpu.nvlinks or ())


RULE = Rule(
    id="gpu.nvlink.count",
    title="NVLinks against siblings",
    why="NCCL builds its rings over the links that all GPUs have: one missing link slows every"
    " GPU of the node, and none at all sends its traffic over PCIe.",
    fix="`nvidia-smi nvlink --status -i N`; restart nvidia-fabricmanager, reset all GPUs of the"
    " node, and have the bridge or the baseboard looked at if it stays down.",
    source="NVIDIA/nvidia-resiliency-ext, leptonai/gpud",
    judge=_judge,
    gpus_only=True,
)

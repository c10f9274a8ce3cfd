"""GPUs that are split into MIG instances."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from distrun.checks.each import device, unread
from distrun.checks.limits import Limits
from distrun.checks.rule import Observation, Rule, Severity, Workload
from distrun.probe.snapshot import Gpu, Node


def _judge(nodes: Sequence[Node], job: Workload, limits: Limits) -> Iterator[Observation]:
    for node in nodes:
        gpus = node.nvml.present
        modes = {gpu.mig_mode for gpu in gpus} - {None}
        for gpu in gpus:
            for seen in _check(gpu, mixed=len(modes) > 1):
                yield replace(seen, node=node.name, device=device(gpu))


def _check(gpu: Gpu, *, mixed: bool) -> Iterator[Observation]:
    pending = gpu.mig_mode_pending
    if gpu.mig_mode is None:
        yield from unread(gpu, "mig_mode")
    elif pending is not None and pending != gpu.mig_mode:
        turned = "on" if pending else "off"
        yield Observation(Severity.WARN, f"MIG goes {turned} at the next reset", "settled")
    elif gpu.mig_mode and mixed:
        yield Observation(Severity.FAIL, "MIG on, off on other GPUs", "the same on all GPUs")
    elif gpu.mig_mode:
        yield Observation(Severity.WARN, "MIG on", "MIG off")


RULE = Rule(
    id="gpu.mig",
    title="Multi-instance GPUs (MIG)",
    why="A process can use one MIG instance at most, instances have neither P2P nor NVLink"
    " between them, and NCCL refuses two ranks on one GPU unless NCCL_MULTI_RANK_GPU_ENABLE is"
    " set.",
    fix="`nvidia-smi -i N -mig 0`, with no process on the GPU (some GPUs need a reset after it).",
    source="NVIDIA/nccl#1716, NVIDIA/nccl#418",
    judge=_judge,
    gpus_only=True,
)

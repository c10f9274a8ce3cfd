"""A GPU that has fallen off the bus (Xid 79)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from distrun.checks.each import device
from distrun.checks.limits import Limits
from distrun.checks.rule import Observation, Rule, Severity, Workload
from distrun.probe.snapshot import Node


def _judge(nodes: Sequence[Node], job: Workload, limits: Limits) -> Iterator[Observation]:
    for node in nodes:
        for index in node.nvml.refused_gpus:  # most often another user's
            yield Observation(Severity.SKIP, "NoPermission", "", node.name, f"GPU {index}")
        for gpu in node.nvml.gpus:
            if gpu.lost:
                yield Observation(
                    Severity.FAIL, f"gives no answer: {gpu.lost}", "a GPU", node.name, device(gpu)
                )


RULE = Rule(
    id="gpu.lost",
    title="GPUs that no longer answer",
    why="The driver still counts it, but it cannot be used. CUDA may fail to initialize on the"
    " whole node, and device ordinals shift by one.",
    fix="Drain the node and power-cycle it (a warm reboot often does not bring the card back); if"
    " it is lost again, reseat or replace the card. InsufficientPower: connect its power"
    " cables. IrqIssue: reboot, and read `dmesg | grep NVRM`.",
    source="NVML, errors of nvmlDeviceGetHandleByIndex_v2; Xid 79",
    judge=_judge,
    quick=True,
    gpus_only=True,
)

"""A GPU that has fallen off the bus."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from distrun.checks.each import device
from distrun.checks.limits import Limits
from distrun.checks.rule import Job, Observation, Rule, Severity
from distrun.probe.snapshot import Node


def _judge(nodes: Sequence[Node], job: Job, limits: Limits) -> Iterator[Observation]:
    for node in nodes:
        for index in node.nvml.refused_gpus:  # somebody else's, most often
            yield Observation(Severity.SKIP, "NoPermission", "", node.name, f"GPU {index}")
        for gpu in node.nvml.gpus:
            if gpu.lost:
                yield Observation(
                    Severity.FAIL, f"gives no answer: {gpu.lost}", "a GPU", node.name, device(gpu)
                )


RULE = Rule(
    id="gpu.lost",
    title="GPUs that no longer answer",
    why="The driver still counts it, but nothing can be done with it; CUDA may refuse to start"
    " on the whole node, and ordinals shift by one.",
    fix="Drain the node and power-cycle it (a warm reboot often does not bring the card back);"
    " if it is lost again, reseat or replace the card. InsufficientPower: plug its power cables in."
    " IrqIssue: reboot, and read `dmesg | grep NVRM`.",
    source="NVML, errors of nvmlDeviceGetHandleByIndex_v2; Xid 79",
    judge=_judge,
    quick=True,
    gpus_only=True,
)

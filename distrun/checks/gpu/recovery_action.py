"""A recovery action that the driver asks for before a GPU is used again."""

from __future__ import annotations

from collections.abc import Iterator

from distrun.checks.each import each_gpu, unread
from distrun.checks.limits import Limits
from distrun.checks.rule import Observation, Rule, Severity, Workload
from distrun.probe.snapshot import Gpu

_ACTIONS = {
    1: "reset the GPU",
    2: "reboot the node",
    3: "drain P2P traffic",
    4: "drain the GPU and reset it",
    5: "recover the IMEX domain",
    6: "reset the GPU's bus",
    7: "reboot the system",
}


def _check(gpu: Gpu, job: Workload, limits: Limits) -> Iterator[Observation]:
    action = gpu.recovery_action
    if action is None:
        yield from unread(gpu, "recovery_action")
    elif action != 0:
        asked = _ACTIONS.get(action, f"unknown action {action}")
        yield Observation(Severity.FAIL, f"the driver asks: {asked}", "nothing to recover")


RULE = Rule(
    id="gpu.recovery",
    title="Recovery action pending",
    why="The driver has found a fault that it cannot clear while running. Other health"
    " counters may look fine, but the next kernel or NCCL call fails.",
    fix="Do what the driver asks: `nvidia-smi --gpu-reset -i N` with no process on the GPU, or"
    " reboot the node; then check again.",
    source="NVML_FI_DEV_GET_GPU_RECOVERY_ACTION; NVIDIA/DCGM#263",
    judge=each_gpu(_check),
    quick=True,
    gpus_only=True,
)

"""GPUs behind NVSwitches must have joined the fabric."""

from __future__ import annotations

from collections.abc import Iterator

from distrun.checks.each import each_gpu, unread
from distrun.checks.limits import Limits
from distrun.checks.rule import Observation, Rule, Severity, Workload
from distrun.probe.snapshot import Gpu

_STATES = {1: "not started", 2: "in progress"}
_COMPLETED = 3


def _check(gpu: Gpu, job: Workload, limits: Limits) -> Iterator[Observation]:
    state, status = gpu.fabric_state, gpu.fabric_status
    if state is None:
        yield from unread(gpu, "fabric_state")
    elif state not in (0, _COMPLETED):
        said = _STATES.get(state, f"state {state}")
        yield Observation(Severity.FAIL, f"joining the fabric: {said}", "completed")
    elif state == _COMPLETED and status is None:
        yield from unread(gpu, "fabric_status")
    elif state == _COMPLETED and status:
        yield Observation(
            Severity.FAIL, f"the fabric manager refused it: NVML error {status}", "joined"
        )


RULE = Rule(
    id="gpu.fabric",
    title="NVSwitch fabric",
    why="Until the fabric manager has registered the GPU, CUDA does not start on it: error"
    " 802, system not yet initialized.",
    fix="`systemctl restart nvidia-fabricmanager` (its version must be the driver's), and read"
    " /var/log/fabricmanager.log; on NVL72 check nvidia-imex too.",
    source="pytorch/pytorch#35710; NCCL, mnnvl.cc",
    judge=each_gpu(_check),
    gpus_only=True,
)

"""Memory rows that will be remapped at the next reset."""

from __future__ import annotations

from collections.abc import Iterator

from distrun.checks.each import each_gpu, unread
from distrun.checks.limits import Limits
from distrun.checks.rule import Observation, Rule, Severity, Workload
from distrun.probe.snapshot import Gpu


def _check(gpu: Gpu, job: Workload, limits: Limits) -> Iterator[Observation]:
    if gpu.remapped_rows_pending is None:
        yield from unread(gpu, "remapped_rows_pending")
    elif gpu.remapped_rows_pending:
        yield Observation(Severity.WARN, "rows are pending remapping", "none pending")


RULE = Rule(
    id="gpu.remap.pending",
    title="Row remapping pending",
    why="A bad memory row stays in use until the GPU is reset: the next error in it may end"
    " the job.",
    fix="`nvidia-smi --gpu-reset -i N` with no process on the GPU, or reboot the node.",
    source="NVIDIA GPU memory error management; facebookresearch/gcm",
    judge=each_gpu(_check),
    gpus_only=True,
)

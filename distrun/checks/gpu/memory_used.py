"""Memory of a GPU that is taken by nobody who can be seen."""

from __future__ import annotations

from collections.abc import Iterator

from distrun.checks.each import each_gpu_of_a_rank, unread
from distrun.checks.limits import Limits
from distrun.checks.rule import Job, Observation, Rule, Severity
from distrun.checks.words import gib
from distrun.probe.snapshot import Gpu


def _look(gpu: Gpu, job: Job, limits: Limits) -> Iterator[Observation]:
    used, total = gpu.memory_used_nbytes, gpu.memory_total_nbytes
    if used is None or total is None:
        yield from unread(gpu, "memory_used_nbytes", "memory_total_nbytes")
        return
    allowed = min(limits.gpu_used_warn_nbytes, total * limits.gpu_used_warn_percent / 100)
    drawing = sum(process.used_nbytes or 0 for process in gpu.graphics_processes or ())
    unseen = used - drawing
    if unseen > allowed and not gpu.processes:  # with processes, gpu.processes tells of them
        yield Observation(
            Severity.WARN,
            f"{gib(unseen)} of {gib(total)} used by a process that is not seen",
            f"at most {gib(int(allowed))} before a job starts",
        )


RULE = Rule(
    id="gpu.memory",
    title="GPU memory in use",
    why="Somebody in another container, or a rank that was never reaped, holds memory that the"
    " job counts on: it will run out where it did not before, or share the GPU's time.",
    fix="On the host, outside of containers: `nvidia-smi`, `fuser -v /dev/nvidia*`; end the"
    " process, or choose other GPUs with `distrun launch --gpus free:N`.",
    source="facebookresearch/gcm (any above 15 MB)",
    judge=each_gpu_of_a_rank(_look),
    quick=True,
    gpus_only=True,
)

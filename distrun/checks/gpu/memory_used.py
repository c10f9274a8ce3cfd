"""GPU memory in use by processes that are not visible."""

from __future__ import annotations

from collections.abc import Iterator

from distrun.checks.each import each_gpu_of_a_rank, unread
from distrun.checks.limits import Limits
from distrun.checks.rule import Observation, Rule, Severity, Workload
from distrun.checks.words import gib
from distrun.probe.snapshot import Gpu


def _check(gpu: Gpu, job: Workload, limits: Limits) -> Iterator[Observation]:
    used, total = gpu.memory_used_nbytes, gpu.memory_total_nbytes
    if used is None or total is None:
        yield from unread(gpu, "memory_used_nbytes", "memory_total_nbytes")
        return
    allowed = min(limits.gpu_used_warn_nbytes, total * limits.gpu_used_warn_percent / 100)
    drawing = sum(process.used_nbytes or 0 for process in gpu.graphics_processes or ())
    unseen = used - drawing
    if unseen > allowed and not gpu.processes:  # visible processes are reported by gpu.processes
        yield Observation(
            Severity.WARN,
            f"{gib(unseen)} of {gib(total)} used by a process that is not visible",
            f"at most {gib(int(allowed))} before a job starts",
        )


RULE = Rule(
    id="gpu.memory",
    title="GPU memory in use",
    why="A process in another container, or a rank that was never reaped, holds memory that"
    " the job needs: the job may run out of memory, or share the GPU's time.",
    fix="On the host, outside containers: `nvidia-smi`, `fuser -v /dev/nvidia*`; end the"
    " process, or choose other GPUs with `distrun launch --gpus free:N`.",
    source="facebookresearch/gcm (any above 15 MB)",
    judge=each_gpu_of_a_rank(_check),
    quick=True,
    gpus_only=True,
)

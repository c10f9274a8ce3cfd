"""Other processes on a GPU before the job starts."""

from __future__ import annotations

from collections.abc import Iterator

from distrun.checks.each import each_gpu_of_a_rank, unread
from distrun.checks.limits import Limits
from distrun.checks.rule import Observation, Rule, Severity, Workload
from distrun.checks.words import some
from distrun.probe.snapshot import Gpu


def _check(gpu: Gpu, job: Workload, limits: Limits) -> Iterator[Observation]:
    if gpu.processes is None:
        yield from unread(gpu, "processes")
        return
    least = limits.gpu_process_ignored_nbytes
    there = [p for p in gpu.company if p.used_nbytes is None or p.used_nbytes > least]
    desktop_nbytes = limits.gpu_used_warn_nbytes
    there += [p for p in gpu.graphics_processes or () if (p.used_nbytes or 0) > desktop_nbytes]
    if there:
        yield Observation(
            Severity.WARN, some([str(process) for process in there], 3), "no other process"
        )


RULE = Rule(
    id="gpu.processes",
    title="Other processes on a GPU",
    why="They take memory and time from the rank that will run there, and all other ranks wait"
    " for that rank.",
    fix="Ask the user, or end the process if it is left over from a job of yours; or choose"
    " other GPUs with `distrun launch --gpus free:N`.",
    source="facebookresearch/gcm (any above 15 MB)",
    judge=each_gpu_of_a_rank(_check),
    quick=True,
    gpus_only=True,
)

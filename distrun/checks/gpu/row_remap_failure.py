"""Broken memory rows that could not be replaced."""

from __future__ import annotations

from collections.abc import Iterator

from distrun.checks.each import each_gpu, unread
from distrun.checks.limits import Limits
from distrun.checks.rule import Job, Observation, Rule, Severity
from distrun.probe.snapshot import Gpu


def _look(gpu: Gpu, job: Job, limits: Limits) -> Iterator[Observation]:
    if gpu.remapped_rows_failure is None:
        yield from unread(gpu, "remapped_rows_failure")
    elif gpu.remapped_rows_failure:
        yield Observation(Severity.FAIL, "row remapping failed", "no failure")


RULE = Rule(
    id="gpu.remap.failure",
    title="Row remapping failed",
    why="A memory row is broken and no spare one is left in its bank: kernels that touch it die"
    " of an uncorrectable error, again and again.",
    fix="Drain the node and have the GPU replaced; this is a reason for an RMA by itself.",
    source="NVIDIA GPU memory error management, RMA policy",
    judge=each_gpu(_look),
    quick=True,
    gpus_only=True,
)

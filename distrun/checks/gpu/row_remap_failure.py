"""Memory rows that could not be remapped."""

from __future__ import annotations

from collections.abc import Iterator

from distrun.checks.each import each_gpu, unread
from distrun.checks.limits import Limits
from distrun.checks.rule import Observation, Rule, Severity, Workload
from distrun.probe.snapshot import Gpu


def _check(gpu: Gpu, job: Workload, limits: Limits) -> Iterator[Observation]:
    if gpu.remapped_rows_failure is None:
        yield from unread(gpu, "remapped_rows_failure")
    elif gpu.remapped_rows_failure:
        yield Observation(Severity.FAIL, "row remapping failed", "no failure")


RULE = Rule(
    id="gpu.remap.failure",
    title="Row remapping failed",
    why="A memory row is broken and no spare row is left in its bank: kernels that use it fail"
    " with an uncorrectable error each time.",
    fix="Drain the node and have the GPU replaced; this is a reason for an RMA by itself.",
    source="NVIDIA GPU memory error management, RMA policy",
    judge=each_gpu(_check),
    quick=True,
    gpus_only=True,
)

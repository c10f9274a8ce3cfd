"""The number of remapped memory rows."""

from __future__ import annotations

from collections.abc import Iterator

from distrun.checks.each import each_gpu, unread
from distrun.checks.limits import Limits
from distrun.checks.rule import Observation, Rule, Severity, Workload
from distrun.probe.snapshot import Gpu


def _check(gpu: Gpu, job: Workload, limits: Limits) -> Iterator[Observation]:
    rows, most = gpu.remapped_rows_uncorrected, limits.remapped_rows_max
    if rows is None:
        yield from unread(gpu, "remapped_rows_uncorrected")
    elif rows > most:
        yield Observation(Severity.FAIL, f"{rows} rows remapped", f"{most} at most")


RULE = Rule(
    id="gpu.remap.count",
    title="Rows remapped for uncorrectable errors",
    why="Spare rows are limited: a GPU that has used this many will soon have none left in"
    " some bank.",
    fix="Have the GPU replaced: this count is a reason for an RMA.",
    source="NVIDIA GPU memory error management, RMA policy (512 in all, 8 a bank)",
    judge=each_gpu(_check),
    gpus_only=True,
)

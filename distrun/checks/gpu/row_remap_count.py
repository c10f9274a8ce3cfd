"""How many broken memory rows have been replaced."""

from __future__ import annotations

from collections.abc import Iterator

from distrun.checks.each import each_gpu, unread
from distrun.checks.limits import Limits
from distrun.checks.rule import Job, Observation, Rule, Severity
from distrun.probe.snapshot import Gpu


def _look(gpu: Gpu, job: Job, limits: Limits) -> Iterator[Observation]:
    rows, most = gpu.remapped_rows_uncorrected, limits.remapped_rows_max
    if rows is None:
        yield from unread(gpu, "remapped_rows_uncorrected")
    elif rows > most:
        yield Observation(Severity.FAIL, f"{rows} rows remapped", f"{most} at most")


RULE = Rule(
    id="gpu.remap.count",
    title="Rows remapped for uncorrectable errors",
    why="Spare rows are few: a GPU that has used this many will soon have none where it needs one.",
    fix="Have the GPU replaced: this count is a reason for an RMA.",
    source="NVIDIA GPU memory error management, RMA policy (512 in all, 8 a bank)",
    judge=each_gpu(_look),
    gpus_only=True,
)

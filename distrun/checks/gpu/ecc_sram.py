"""Errors of the GPU's caches and registers above NVIDIA's threshold."""

from __future__ import annotations

from collections.abc import Iterator

from distrun.checks.each import each_gpu, unread
from distrun.checks.limits import Limits
from distrun.checks.rule import Observation, Rule, Severity, Workload
from distrun.probe.snapshot import Gpu


def _check(gpu: Gpu, job: Workload, limits: Limits) -> Iterator[Observation]:
    if gpu.ecc_sram_threshold_exceeded is None:
        yield from unread(gpu, "ecc_sram_threshold_exceeded")
    elif gpu.ecc_sram_threshold_exceeded:
        yield Observation(Severity.FAIL, "SRAM error threshold exceeded", "not exceeded")


RULE = Rule(
    id="gpu.ecc.sram",
    title="SRAM errors",
    why="SRAM has no spare rows to remap to: above the threshold the GPU will keep failing,"
    " and NVIDIA replaces it.",
    fix="Run NVIDIA's field diagnostic and have the GPU replaced.",
    source="NVIDIA GPU memory error management, RMA policy",
    judge=each_gpu(_check),
    gpus_only=True,
)

"""Persistence mode should be on, so that the driver stays loaded between jobs."""

from __future__ import annotations

from collections.abc import Iterator

from distrun.checks.each import each_gpu, unread
from distrun.checks.limits import Limits
from distrun.checks.rule import Observation, Rule, Severity, Workload
from distrun.probe.snapshot import Gpu


def _check(gpu: Gpu, job: Workload, limits: Limits) -> Iterator[Observation]:
    if gpu.persistence_mode is None:
        yield from unread(gpu, "persistence_mode")
    elif not gpu.persistence_mode:
        yield Observation(Severity.WARN, "persistence mode off", "on")


RULE = Rule(
    id="gpu.persistence",
    title="Persistence mode",
    why="When the last process ends, the driver shuts the GPU down: each start then takes"
    " seconds longer, settings are lost, and NVLinks are trained again.",
    fix="`systemctl enable --now nvidia-persistenced`, or `nvidia-smi -pm 1`.",
    source="leptonai/gpud, Azure/azurehpc-health-checks",
    judge=each_gpu(_check),
    gpus_only=True,
)

"""Clocks that the hardware itself holds down."""

from __future__ import annotations

from collections.abc import Iterator

from distrun.checks.each import each_gpu, unread
from distrun.checks.limits import Limits
from distrun.checks.rule import Job, Observation, Rule, Severity
from distrun.probe.snapshot import Gpu

_REASONS = {
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
    0x08: "hardware slowdown",
}


def _look(gpu: Gpu, job: Job, limits: Limits) -> Iterator[Observation]:
    if gpu.clock_events is None:
        yield from unread(gpu, "clock_events")
        return
    reasons = [name for bit, name in _REASONS.items() if gpu.clock_events & bit]
    if reasons:
        yield Observation(Severity.FAIL, ", ".join(reasons), "clocks that are not held down")


RULE = Rule(
    id="gpu.clocks.hardware",
    title="Clocks held down by the hardware",
    why="Heat, or a power supply that asks for relief, has cut the clocks to a half or less: the"
    " whole job runs at the speed of this GPU.",
    fix="`nvidia-smi -q -d PERFORMANCE -i N` tells the reason; look at cooling, power cables and"
    " the power supplies of the node.",
    source="nvmlClocksEventReasonHw*; Azure/azurehpc-health-checks",
    judge=each_gpu(_look),
    quick=True,
    gpus_only=True,
)

"""Clocks that the hardware has reduced."""

from __future__ import annotations

from collections.abc import Iterator

from distrun.checks.each import each_gpu, unread
from distrun.checks.limits import Limits
from distrun.checks.rule import Observation, Rule, Severity, Workload
from distrun.probe.snapshot import Gpu

_REASONS = {
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
    0x08: "hardware slowdown",
}


def _check(gpu: Gpu, job: Workload, limits: Limits) -> Iterator[Observation]:
    if gpu.clock_events is None:
        yield from unread(gpu, "clock_events")
        return
    reasons = [name for bit, name in _REASONS.items() if gpu.clock_events & bit]
    if reasons:
        yield Observation(Severity.FAIL, ", ".join(reasons), "clocks that are not reduced")


RULE = Rule(
    id="gpu.clocks.hardware",
    title="Clocks reduced by the hardware",
    why="Heat or a power supply's brake signal has reduced the clocks to half or less: the"
    " whole job runs at the speed of this GPU.",
    fix="`nvidia-smi -q -d PERFORMANCE -i N` shows the reason; check the node's cooling, power"
    " cables and power supplies.",
    source="nvmlClocksEventReasonHw*; Azure/azurehpc-health-checks",
    judge=each_gpu(_check),
    quick=True,
    gpus_only=True,
)

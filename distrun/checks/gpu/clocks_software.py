"""Clocks that the driver has reduced, other than by idling and the power cap, which are normal."""

from __future__ import annotations

from collections.abc import Iterator

from distrun.checks.each import each_gpu, unread
from distrun.checks.limits import Limits
from distrun.checks.rule import Observation, Rule, Severity, Workload
from distrun.probe.snapshot import Gpu

_SET_BY_HAND, _THERMAL = 0x02, 0x20


def _check(gpu: Gpu, job: Workload, limits: Limits) -> Iterator[Observation]:
    if gpu.clock_events is None:
        yield from unread(gpu, "clock_events")
        return
    if gpu.clock_events & _THERMAL:
        yield Observation(Severity.WARN, "software thermal slowdown", "no thermal slowdown")
    if gpu.clock_events & _SET_BY_HAND:
        # Some boards have a default below their maximum (V100): not a reason to warn.
        yield Observation(Severity.INFO, "application clocks are set", "the default clocks")


RULE = Rule(
    id="gpu.clocks.software",
    title="Clocks reduced by the driver",
    why="The driver lowers the clocks before the GPU gets too hot, or a user has fixed them:"
    " this GPU is slower than the others, and all ranks wait for it.",
    fix="Heat: check the cooling. Fixed clocks: `nvidia-smi -i N -rac` and `nvidia-smi -i N"
    " -rgc` reset them.",
    source="nvmlClocksEventReasonSwThermalSlowdown; Azure/azurehpc-health-checks",
    judge=each_gpu(_check),
    gpus_only=True,
)

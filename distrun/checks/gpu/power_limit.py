"""A GPU that may draw less power than it was built for."""

from __future__ import annotations

from collections.abc import Iterator

from distrun.checks.each import each_gpu, unread
from distrun.checks.limits import Limits
from distrun.checks.rule import Job, Observation, Rule, Severity
from distrun.probe.snapshot import Gpu


def _look(gpu: Gpu, job: Job, limits: Limits) -> Iterator[Observation]:
    limit, default = gpu.power_limit_w, gpu.power_default_limit_w
    if limit is None or default is None:
        yield from unread(gpu, "power_limit_w", "power_default_limit_w")
    elif limit < default:
        yield Observation(Severity.WARN, f"limited to {limit:g} W", f"{default:g} W")


RULE = Rule(
    id="gpu.power_limit",
    title="Power limit below the default",
    why="Under load the GPU lowers its clocks to keep to the limit, and the ranks of the other"
    " GPUs wait for it.",
    fix="`nvidia-smi -i N -pl WATTS` as root sets it back; if the limit is meant, set the same on"
    " every GPU.",
    source="distrun's own rule",
    judge=each_gpu(_look),
    gpus_only=True,
)

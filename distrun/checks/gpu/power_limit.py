"""A GPU with a power limit below its default."""

from __future__ import annotations

from collections.abc import Iterator

from distrun.checks.each import each_gpu, unread
from distrun.checks.limits import Limits
from distrun.checks.rule import Observation, Rule, Severity, Workload
from distrun.probe.snapshot import Gpu


def _check(gpu: Gpu, job: Workload, limits: Limits) -> Iterator[Observation]:
    limit, default = gpu.power_limit_w, gpu.power_default_limit_w
    if limit is None or default is None:
        yield from unread(gpu, "power_limit_w", "power_default_limit_w")
    elif limit < default:
        yield Observation(Severity.WARN, f"limited to {limit:g} W", f"{default:g} W")


RULE = Rule(
    id="gpu.power_limit",
    title="Power limit below the default",
    why="Under load the GPU lowers its clocks to stay below the limit, and the ranks of the"
    " other GPUs wait for it.",
    fix="`nvidia-smi -i N -pl WATTS` as root restores it; if the limit is intended, set the"
    " same on every GPU.",
    source="distrun's own rule",
    judge=each_gpu(_check),
    gpus_only=True,
)

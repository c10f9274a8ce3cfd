"""How close a GPU is to the temperature at which it slows down or stops."""

from __future__ import annotations

from collections.abc import Iterator

from distrun.checks.each import each_gpu, unread
from distrun.checks.limits import Limits
from distrun.checks.rule import Observation, Rule, Severity, Workload
from distrun.probe.snapshot import Gpu


def _check(gpu: Gpu, job: Workload, limits: Limits) -> Iterator[Observation]:
    heat, slows, most = gpu.temperature_c, gpu.temperature_slowdown_c, gpu.temperature_max_c
    # Values below 1 are not reliable, as on some H100 (leptonai/gpud).
    margin = gpu.temperature_margin_c if (gpu.temperature_margin_c or 0) > 0 else None
    near = limits.temperature_margin_c
    if heat is not None and slows is not None and heat >= slows:
        yield Observation(Severity.FAIL, f"{heat} °C", f"below {slows} °C, where it slows down")
    elif heat is not None and most is not None and heat > most:
        yield Observation(Severity.FAIL, f"{heat} °C", f"at most {most} °C")
    elif heat is not None and slows is not None and slows - heat <= near:
        below = slows - near
        yield Observation(Severity.WARN, f"{heat} °C", f"below {below} °C; it slows at {slows}")
    elif None in (heat, slows) and margin is not None and margin <= near:
        told = f"{margin} °C below where it slows down"
        yield Observation(Severity.WARN, told, f"more than {near} °C below")
    yield from _memory(gpu)
    if margin is None:
        yield from unread(gpu, "temperature_c", "temperature_slowdown_c", "temperature_max_c")


def _memory(gpu: Gpu) -> Iterator[Observation]:
    heat, most = gpu.memory_temperature_c, gpu.memory_temperature_max_c
    if heat is not None and most is not None and heat > most:
        yield Observation(Severity.FAIL, f"memory {heat} °C", f"at most {most} °C")
    yield from unread(gpu, "memory_temperature_c", "memory_temperature_max_c")


RULE = Rule(
    id="gpu.temperature",
    title="Temperature",
    why="A GPU that is too hot lowers its clocks, and every other rank waits for it at each"
    " step. At a still higher temperature it switches off.",
    fix="Check fans, dust, coolant and the rack's air flow; meanwhile lower the power limit:"
    " `nvidia-smi -i N -pl WATTS`.",
    source="NVML's own thresholds; the margin is leptonai/gpud's example",
    judge=each_gpu(_check),
    gpus_only=True,
)

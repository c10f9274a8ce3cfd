"""A PCIe link that stays below its generation while the GPU is busy."""

from __future__ import annotations

from collections.abc import Iterator

from distrun.checks.each import each_gpu, unread
from distrun.checks.limits import Limits
from distrun.checks.rule import Observation, Rule, Severity, Workload
from distrun.probe.snapshot import Gpu


def _check(gpu: Gpu, job: Workload, limits: Limits) -> Iterator[Observation]:
    now, most, load = gpu.pcie_generation, gpu.pcie_generation_max, gpu.utilization_percent
    if now is None or most is None or load is None:
        yield from unread(gpu, "pcie_generation", "pcie_generation_max", "utilization_percent")
    elif now < most and load >= limits.pcie_busy_percent:  # an idle GPU lowers it to save power
        yield Observation(Severity.WARN, f"PCIe gen {now} at {load} % load", f"gen {most}")


RULE = Rule(
    id="gpu.pcie.generation",
    title="PCIe generation under load",
    why="Each generation below the maximum halves the bandwidth to the host.",
    fix="Reseat the card and its riser, set the slot to its highest generation in the BIOS,"
    " and disable ASPM (pcie_aspm=off).",
    source="nvmlDeviceGetCurrPcieLinkGeneration; an idle GPU may rest at gen 1",
    judge=each_gpu(_check),
    gpus_only=True,
)

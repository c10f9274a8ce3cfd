"""Memory errors that ECC could not correct."""

from __future__ import annotations

from collections.abc import Iterator

from distrun.checks.each import each_gpu, unread
from distrun.checks.limits import Limits
from distrun.checks.rule import Observation, Rule, Severity, Workload
from distrun.probe.snapshot import Gpu


def _check(gpu: Gpu, job: Workload, limits: Limits) -> Iterator[Observation]:
    volatile, aggregate = gpu.ecc_volatile_uncorrected, gpu.ecc_aggregate_uncorrected
    if volatile:
        yield Observation(Severity.FAIL, f"{volatile} uncorrectable since the last reset", "0")
    elif aggregate:
        yield Observation(Severity.WARN, f"{aggregate} uncorrectable in its lifetime", "0")
    yield from unread(gpu, "ecc_volatile_uncorrected", "ecc_aggregate_uncorrected")


RULE = Rule(
    id="gpu.ecc.uncorrected",
    title="Uncorrectable memory errors",
    why="An error since the last reset means that wrong data may have been read, and that"
    " processes fail with Xid 48, 63 or 94. Older errors mean that this memory may fail again.",
    fix="Reset the GPU (`nvidia-smi --gpu-reset -i N`) or reboot, so that the row is remapped;"
    " if errors return, have the GPU replaced.",
    source="facebookresearch/gcm, Azure/azurehpc-health-checks",
    judge=each_gpu(_check),
    gpus_only=True,
)

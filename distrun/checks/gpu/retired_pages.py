"""Retired memory pages, on GPUs older than Ampere."""

from __future__ import annotations

from collections.abc import Iterator

from distrun.checks.each import each_gpu, unread
from distrun.checks.limits import Limits
from distrun.checks.rule import Observation, Rule, Severity, Workload
from distrun.probe.snapshot import Gpu


def _check(gpu: Gpu, job: Workload, limits: Limits) -> Iterator[Observation]:
    pages, many = gpu.retired_pages, limits.retired_pages_warn
    if gpu.retired_pages_pending:
        yield Observation(Severity.FAIL, "pages are pending retirement", "none pending")
    elif pages is not None and pages >= many:
        yield Observation(Severity.WARN, f"{pages} pages retired", f"fewer than {many}")
    yield from unread(gpu, "retired_pages", "retired_pages_pending")


RULE = Rule(
    id="gpu.retired_pages",
    title="Retired memory pages",
    why="A page pending retirement is broken and still in use. Many retired pages mean that"
    " the memory is failing (64 is the maximum).",
    fix="`nvidia-smi --gpu-reset -i N` or a reboot retires pending pages; have a GPU with many"
    " retired pages replaced.",
    source="NVIDIA dynamic page retirement; facebookresearch/gcm",
    judge=each_gpu(_check),
    gpus_only=True,
)

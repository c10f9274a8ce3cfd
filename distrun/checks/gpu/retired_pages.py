"""Memory pages taken out of use, on GPUs older than Ampere."""

from __future__ import annotations

from collections.abc import Iterator

from distrun.checks.each import each_gpu, unread
from distrun.checks.limits import Limits
from distrun.checks.rule import Job, Observation, Rule, Severity
from distrun.probe.snapshot import Gpu


def _look(gpu: Gpu, job: Job, limits: Limits) -> Iterator[Observation]:
    pages, many = gpu.retired_pages, limits.retired_pages_warn
    if gpu.retired_pages_pending:
        yield Observation(Severity.FAIL, "pages wait to be retired", "none pending")
    elif pages is not None and pages >= many:
        yield Observation(Severity.WARN, f"{pages} pages retired", f"fewer than {many}")
    yield from unread(gpu, "retired_pages", "retired_pages_pending")


RULE = Rule(
    id="gpu.retired_pages",
    title="Retired memory pages",
    why="A page that waits to be retired is broken and still in use; many retired ones say that"
    " the memory is wearing out (64 is the end).",
    fix="`nvidia-smi --gpu-reset -i N` or a reboot retires pending pages; a GPU with many is to"
    " be replaced.",
    source="NVIDIA dynamic page retirement; facebookresearch/gcm",
    judge=each_gpu(_look),
    gpus_only=True,
)

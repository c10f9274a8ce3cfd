"""Error counters of NVLinks."""

from __future__ import annotations

from collections.abc import Iterator

from distrun.checks.each import each_gpu, unread
from distrun.checks.limits import Limits
from distrun.checks.rule import Job, Observation, Rule, Severity
from distrun.checks.words import some
from distrun.probe.snapshot import Gpu

_NORMAL = {"retry_blocks"}
"""Counts what the link layer has mended: it grows on a healthy link too."""
_NEVER = {"link_recovery_failed"}


def _look(gpu: Gpu, job: Job, limits: Limits) -> Iterator[Observation]:
    if gpu.nvlinks is None:
        yield from unread(gpu, "nvlinks")
        return
    bad = [
        f"link {link.link}: {count} {counter.replace('_', ' ')}"
        for link in gpu.nvlinks
        for counter, count in link.errors.items()
        if counter not in _NORMAL
        and count > (0 if counter in _NEVER else limits.nvlink_errors_warn)
    ]
    if bad:
        most = f"at most {limits.nvlink_errors_warn} of each"
        yield Observation(Severity.WARN, some(bad, 3), most)


RULE = Rule(
    id="gpu.nvlink.errors",
    title="NVLink errors",
    why="A link that has errors sends its data again, or falls out in the middle of a collective"
    " (Xid 74). The counters run since the last reset: see whether they still grow.",
    fix="`nvidia-smi nvlink -e -i N` twice, some minutes apart; if they grow, reset the GPUs of"
    " the node and have bridge or baseboard reseated.",
    source="NVIDIA/nvidia-resiliency-ext (above 15)",
    judge=each_gpu(_look),
    gpus_only=True,
)

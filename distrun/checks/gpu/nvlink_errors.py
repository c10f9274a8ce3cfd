"""Error counters of NVLinks."""

from __future__ import annotations

from collections.abc import Iterator

from distrun.checks.each import each_gpu, unread
from distrun.checks.limits import Limits
from distrun.checks.rule import Observation, Rule, Severity, Workload
from distrun.checks.words import some
from distrun.probe.snapshot import Gpu

_NORMAL = {"retry_blocks"}
"""Counts errors that the link layer has corrected: it grows on a healthy link too."""
_NEVER = {"link_recovery_failed"}


def _check(gpu: Gpu, job: Workload, limits: Limits) -> Iterator[Observation]:
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
    why="A link with errors resends data, or fails in the middle of a collective (Xid 74). The"
    " counters start at the last reset: check whether they still grow.",
    fix="`nvidia-smi nvlink -e -i N` twice, some minutes apart; if they grow, reset the GPUs"
    " of the node and have the bridge or the baseboard reseated.",
    source="NVIDIA/nvidia-resiliency-ext (above 15)",
    judge=each_gpu(_check),
    gpus_only=True,
)

"""Which kind of failure has ended an attempt, and which node is suspected (pure)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from distrun import failures
from distrun.diagnose.verdict import RankEnd, Verdict, is_code_bug

# What CUDA and torch say of a broken GPU: https://docs.nvidia.com/cuda/cuda-runtime-api/
# (cudaErrorECCUncorrectable, cudaErrorNvlinkUncorrectable, cudaErrorDevicesUnavailable).
_GPU = re.compile(
    r"uncorrectable (ECC|NVLink) error|fallen off the bus|GPU is lost|\bXid\b"
    r"|ncclUnhandledCudaError|CUDA error: hardware",
    re.IGNORECASE,
)
_GPU_MEMORY = re.compile(r"(CUDA|HIP) out of memory|CUDNN_STATUS_ALLOC_FAILED")
_DISK = re.compile(
    r"No space left on device|Disk quota exceeded|\[Errno (28|122)\]"
    r"|inline_container\.cc[^\n]*unexpected pos"  # of torch.save
)


@dataclass(frozen=True)
class Failure:
    """What has ended an attempt.

    Attributes:
        kind: A name of `failures.KINDS`.
        suspect: The number of the node where it began; None if no node is suspected.
        why: A sentence about it.
    """

    kind: str
    suspect: int | None
    why: str


def of_rank(verdict: Verdict, end: RankEnd | None, why: str) -> Failure:
    """Return the failure of the rank that failed first.

    Args:
        verdict: About it.
        end: How it ended.
        why: The sentence.
    """
    report = (end.report if end else None) or {}
    text = f"{report.get('type', '')}: {report.get('message', '')}\n{end.last_words if end else ''}"
    if end is not None and end.out_of_memory:
        return Failure(failures.HOST_MEMORY, verdict.node, why)
    if report.get("type") == "OutOfMemoryError" or _GPU_MEMORY.search(text):
        return Failure(failures.GPU_MEMORY, verdict.node, why)
    if _GPU.search(text):
        return Failure(failures.GPU, verdict.node, why)
    if _DISK.search(text):
        return Failure(failures.DISK, verdict.node, why)
    return Failure(failures.CRASH, verdict.node, why)


def repeated(
    failure: Failure,
    ends: Sequence[Sequence[RankEnd]],
    before: Sequence[Failure],
    *,
    world_size: int,
    nnodes: int,
    progressed: bool,
    without_steps: bool,
) -> Failure:
    """Return the failure as the history of attempts shows it: a bug, or a bad node.

    Args:
        failure: The last one.
        ends: How the ranks of each attempt ended.
        before: The failures of the attempts before.
        world_size: Number of ranks.
        nnodes: Number of nodes; one alone fails first each time.
        progressed: The last attempt came further than all before.
        without_steps: The last two attempts ended before their first step.
    """
    if failure.kind != failures.CRASH:
        return failure
    if is_code_bug(ends, world_size) and not progressed:
        why = "every rank met the same error at the same line twice, so it is in the code"
        return Failure(failures.CODE, None, why)
    if without_steps:
        why = "two attempts ended before their first step, so it is in the code"
        return Failure(failures.CODE, None, why)
    crashed_before = nnodes > 1 and bool(before) and before[-1].kind == failures.CRASH
    if crashed_before and before[-1].suspect == failure.suspect:
        return Failure(failures.BAD_NODE, failure.suspect, failure.why)
    return failure

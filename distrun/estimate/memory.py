"""Three numbers of memory: allocated, reserved, and what the GPU's driver shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from distrun.estimate.work import Peak, Work

CONTEXT_NBYTES = 700 << 20
"""CUDA context and cuBLAS's workspaces, about, on H100 with CUDA 12."""
GROUP_NBYTES = 400 << 20
"""NCCL's buffers of one process group, about: 16 to 32 channels of each protocol."""
BAND = 0.06
"""Reserved was within this of published rows."""
Verdict = Literal["fits", "tight", "does not fit"]


@dataclass(frozen=True)
class Memory:
    """A rank's memory.

    Attributes:
        allocated: Peak of live tensors, in bytes.
        reserved: What the caching allocator holds.
        device: With context and NCCL: what nvidia-smi shows.
        capacity: Of the GPU; None: the kind is not known.
        peak: The phase of the peak, and what it is made of.
    """

    allocated: int
    reserved: int
    device: int
    capacity: int | None
    peak: Peak

    @property
    def headroom(self) -> int:
        """What is left, in bytes; negative: what lacks."""
        return 0 if self.capacity is None else self.capacity - self.device

    @property
    def verdict(self) -> Verdict | None:
        """Whether it fits; `tight` is within the band."""
        if self.capacity is None:
            return None
        if self.device > self.capacity:
            return "does not fit"
        return "tight" if self.device * (1 + BAND) > self.capacity else "fits"


def memory(
    work: Work, mesh: Mapping[str, int], capacity: int | None, *, cuda: bool = True
) -> Memory:
    """Return the memory of a rank.

    Args:
        work: What it does.
        mesh: Axes and sizes; each above 1 has a process group.
        capacity: Of the GPU in bytes.
        cuda: Whether there are a context and NCCL.
    """
    groups = sum(size > 1 for size in mesh.values())
    over = CONTEXT_NBYTES + GROUP_NBYTES * (groups + (groups > 1))
    peak = max(work.peaks, key=lambda one: one.total)
    device = work.reserved_nbytes + over * cuda
    return Memory(work.allocated, work.reserved_nbytes, device, capacity, peak)

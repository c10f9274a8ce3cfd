"""How DistributedDataParallel puts gradients into buckets: one all_reduce each.

As torch/csrc/distributed/c10d/reducer.cpp does it from the second step on
(https://docs.pytorch.org/docs/stable/notes/ddp.html): in the order in which gradients become ready,
a bucket is closed by the gradient that fills it, and the first one is small.
"""

from __future__ import annotations

from collections.abc import Sequence

FIRST_NBYTES = 1 << 20
CAP_NBYTES = 25 << 20
"""`bucket_cap_mb` of torch, if it is not given."""


def buckets(sizes: Sequence[tuple[str, int]], cap_nbytes: int = CAP_NBYTES) -> list[list[int]]:
    """Return the places, in `sizes`, of the gradients of each bucket, in the order of all_reduce.

    Args:
        sizes: dtype and bytes of each gradient, in the order in which they become ready.
        cap_nbytes: The size that closes a bucket; it may be passed by its last gradient.
    """
    done: list[list[int]] = []
    filling: dict[str, list[int]] = {}
    filled: dict[str, int] = {}
    limits: dict[str, int] = {}
    for place, (dtype, nbytes) in enumerate(sizes):
        filling.setdefault(dtype, []).append(place)
        filled[dtype] = filled.get(dtype, 0) + nbytes
        if filled[dtype] >= limits.get(dtype, FIRST_NBYTES):
            done.append(filling.pop(dtype))
            filled[dtype], limits[dtype] = 0, cap_nbytes
    return done + list(filling.values())

"""Bandwidths of a collective from its size and time: algbw and busbw, as nccl-tests defines them.

Definitions and factors: https://github.com/NVIDIA/nccl-tests/blob/master/doc/PERFORMANCE.md.
"Size" is the number of bytes that the definition of the op counts; it differs from op to op. GB is
10^9 bytes, KiB is 2^10.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Definition:
    """How the size and the bandwidth of one op are defined.

    Attributes:
        size: What "size" means, as text.
        busbw_factor: Function from the number of ranks to busbw / algbw.
        formula: The same as text.
        divides: Whether the size is n equal parts, one per rank.
    """

    size: str
    busbw_factor: Callable[[int], float]
    formula: str
    divides: bool = False


def _all_reduce(n: int) -> float:
    return 2 * (n - 1) / n


def _all_but_one(n: int) -> float:
    return (n - 1) / n


def _one(n: int) -> float:
    return 1.0


_TWICE, _PARTS, _WHOLE = "2(n-1)/n", "(n-1)/n", "1"

DEFINITIONS = {
    "all_reduce": Definition("bytes on each rank", _all_reduce, _TWICE),
    "all_gather": Definition("n x bytes that each rank gives", _all_but_one, _PARTS, True),
    "reduce_scatter": Definition("n x bytes that each rank gets", _all_but_one, _PARTS, True),
    "all_to_all": Definition("bytes that each rank sends in all", _all_but_one, _PARTS, True),
    "gather": Definition("n x bytes that each rank gives", _all_but_one, _PARTS, True),
    "scatter": Definition("n x bytes that each rank gets", _all_but_one, _PARTS, True),
    "broadcast": Definition("bytes of the root", _one, _WHOLE),
    "reduce": Definition("bytes on each rank", _one, _WHOLE),
    "sendrecv": Definition("bytes that each rank sends to the next", _one, _WHOLE),
    "pingpong": Definition("bytes of one message; its time is half of a round trip", _one, _WHOLE),
}
"""Op -> its definition. A barrier has no size, so it has no bandwidth."""


def algbw(nbytes: int, time_s: float) -> float:
    """Return the algorithm bandwidth in bytes per second: size / time."""
    return nbytes / time_s


def busbw(op: str, nbytes: int, time_s: float, world_size: int) -> float:
    """Return the bus bandwidth in bytes per second: the rate of the slowest link in a ring.

    Args:
        op: A name of `DEFINITIONS`.
        nbytes: Its size.
        time_s: Its time.
        world_size: n.
    """
    return algbw(nbytes, time_s) * DEFINITIONS[op].busbw_factor(world_size)


def wire(busbw_of_ranks: float, world_size: int, nnodes: int) -> float:
    """Return the rate of one NIC where n ranks run on k nodes: busbw (k-1)/(n-1).

    Args:
        busbw_of_ranks: busbw, in bytes per second.
        world_size: n, above 1.
        nnodes: k.
    """
    return busbw_of_ranks * (nnodes - 1) / (world_size - 1)

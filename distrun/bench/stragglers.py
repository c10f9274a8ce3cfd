"""Finds the late rank: the one that waits least, because the others wait for it.

The time of a collective does not show which rank is slow: it is long on every rank except the late
    one. So the ranks call a collective repeatedly without a barrier, and each reports how long it
    has waited in it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from distrun.bench.request import Request
from distrun.comm import World

LATE_S = 0.001
LATE_TIMES = 2.0
"""A rank is late if the others wait a millisecond longer than it, and twice as long."""


def measure(
    request: Request, world: World, control: World, work: Callable[[], object] = lambda: None
) -> dict[str, Any]:
    """Run the collectives; return the line that names the late rank.

    Args:
        request: Sets the number of iterations.
        world: The ranks.
        control: The same ranks over gloo.
        work: What a rank does between two collectives.
    """
    x = torch.zeros(1, device=world.device)
    waits = []
    control.barrier()
    for _ in range(request.warmup + request.iterations):
        work()
        if world.device.type == "cuda":
            torch.cuda.synchronize()
        began = time.perf_counter()
        world.transport.all_reduce(x, "sum", False).wait()
        if world.device.type == "cuda":
            torch.cuda.synchronize()
        waits.append(time.perf_counter() - began)
    mine = statistics.median(waits[request.warmup :])
    everyones: list[float] = control.all_gather_object(mine)
    late = latest(everyones)
    return {
        "bench": "stragglers",
        "waits_s": everyones,
        "late": late,
        "by_s": None if late is None else statistics.median(everyones) - everyones[late],
    }


def latest(waits_s: list[float]) -> int | None:
    """Return the late rank, from how long each waited; None if there is none."""
    late = min(range(len(waits_s)), key=waits_s.__getitem__)
    others = [wait for rank, wait in enumerate(waits_s) if rank != late]
    least = min(others, default=0.0)
    stands_out = least - waits_s[late] > LATE_S and least > LATE_TIMES * waits_s[late]
    return late if stands_out else None
